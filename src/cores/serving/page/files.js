// What can be taken home: the picture as shown, all answers as JSON, all answers as one file of labelme's.

const LARGEST = 4096; // pixels of the longer side of a saved picture

function save(name, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function saveJson(name, value) {
  save(name, new Blob([JSON.stringify(value, null, 1) + "\n"], { type: "application/json" }));
}

function stem(name) {
  return name.replace(/\.[^.]*$/, "");
}

// One file of all answers: every object keeps a group of its own; of a question asked twice, the last answer counts.
function labelmeOf(answers) {
  const latest = new Map(answers.map((answer) => [answer.query.trim().toLowerCase(), answer.labelme]));
  const files = [...latest.values()].filter(Boolean);
  let taken = 0;
  const shapes = files.flatMap((file) => {
    const groups = file.shapes.map((shape) => shape.group_id);
    const moved = file.shapes.map((shape) => ({ ...shape, group_id: shape.group_id + taken }));
    taken += Math.max(-1, ...groups) + 1;
    return moved;
  });
  const flags = Object.assign({}, ...files.map((file) => file.flags));
  return files.length ? { ...files[files.length - 1], flags, shapes } : null;
}

$(".png").onclick = () => {
  const { image, name } = view.picture;
  const { width, height } = sizeOf(image, 1, LARGEST);
  const full = blank(width, height);
  const answer = shown();
  compose(full, image, layersOf(answer, width, height, answer && isOn(answer)), opacity());
  full.toBlob((content) => save(stem(name) + ".marked.png", content), "image/png");
};

const finished = () => view.answers.filter((answer) => !answer.open);

$(".json").onclick = () => {
  const answers = finished().map(({ off, open, again, labelme, colors, ...found }) => found);
  saveJson(stem(view.picture.name) + ".answers.json", { image: view.picture.name, answers });
};

$(".labelme").onclick = () => saveJson(stem(view.picture.name) + ".json", labelmeOf(finished()));
