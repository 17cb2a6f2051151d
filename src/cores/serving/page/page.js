// The page: what is shown follows from `view`, and every step keeps the view before it, so that it can be undone.
//
// view.picture: {name, image, file, address} or null; address: a promise of where the server has it, once it was sent.
// view.answers: about this picture, oldest first; view.shown: which of them is looked at.
// An answer: {query, text, open, off} while it is said, then also what the server found (answers.py). `off`: the names
// of levels and the numbers of targets that are switched off.

const LONGEST = 1600; // pixels of the longer side of what is seen: more is drawn smaller,
const SHORTEST = 960; // less is drawn larger, so that outlines are fine
const LARGEST = 4096; // pixels of the longer side of what is saved

const $ = (name) => element.querySelector(name);
const canvas = $("canvas");
let view = { picture: null, suggestions: [], answers: [], shown: -1 };
let past = [];
let asking = 0; // number of the question that is being answered, 0: none
let asked = 0; // questions so far
let kept = { layers: [] }; // the layers of one answer

const shown = () => view.answers[view.shown];

function step(changes) {
  past.push(view);
  view = { ...view, ...changes };
  show();
}

function make(tag, properties, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function sorry(text) {
  $(".sorry").textContent = text;
  $(".sorry").hidden = !text;
}

// -- showing ---------------------------------------------------------------------------------------------------------

function show() {
  const { picture, answers } = view;
  const answer = shown();
  $(".stage").classList.toggle("full", Boolean(picture));
  $(".drop-text").innerHTML = picture
    ? "Another picture"
    : "<strong>Drop a picture here</strong>, paste one, or choose a file";
  $(".examples").hidden = Boolean(picture);
  $(".go").textContent = asking ? "Stop" : "Ask";
  $(".tools").hidden = !picture && !past.length;
  $(".undo").disabled = Boolean(asking) || !past.length;
  const done = answers.filter((one) => !one.open);
  $(".png").disabled = !picture;
  $(".json").disabled = !done.length;
  $(".labelme").disabled = !labelmeOf(done);
  showSuggestions();
  showAnswer(answer);
  showHistory();
  draw();
}

function showSuggestions() {
  const left = view.suggestions.filter((query) => !view.answers.some((answer) => answer.query === query));
  $(".suggestions").replaceChildren(
    ...left.map((query) => make("button", { type: "button", className: "chip", textContent: query, onclick: () => ask(query) })),
  );
}

function showAnswer(answer) {
  $(".card").hidden = !answer;
  $(".under").hidden = !answer?.targets?.length;
  if (!answer) return;
  $(".asked").textContent = answer.query;
  $(".said").replaceChildren(...coloured(answer));
  $(".said").classList.toggle("open", Boolean(answer.open));
  $(".targets").replaceChildren(...(answer.targets ?? []).map((target, number) => targetChoice(answer, target, number)));
  $(".levels").replaceChildren(...levelsOf(answer).map((name) => choice(answer, name, name)));
  const remark = remarkOn(answer);
  $(".remark").textContent = remark;
  $(".remark").hidden = !remark;
}

function remarkOn(answer) {
  if (answer.open) return "";
  if (answer.cut) return "The answer was cut: it grew too long.";
  if (!answer.targets.length) return "Nothing is marked.";
  return answer.targets.every((target) => !target.box) ? "The mask is empty." : "";
}

// The sentence, with each target's name and grounding tokens in the target's colour.
function coloured(answer) {
  if (answer.open) return [answer.text];
  const tokens = answer.targets.flatMap((target, number) => target.levels.map(() => number));
  const parts = [];
  let rest = answer.answer;
  const mark = (tag, text, number) => {
    const at = rest.indexOf(text);
    if (at < 0) return;
    const node = make(tag, { className: tag === "span" ? "pill" : "", textContent: text });
    if (number !== undefined) node.style.setProperty("--color", css(answer.colors[number]));
    parts.push(rest.slice(0, at), node);
    rest = rest.slice(at + text.length);
  };
  let named = -1;
  for (const [token] of answer.answer.matchAll(/\[[A-Z_]+\]/g)) {
    const number = tokens.shift();
    if (number > named) mark("mark", answer.targets[(named = number)].phrase, number);
    mark("span", token, number);
  }
  return [...parts, rest];
}

const css = (color) => "rgb(" + color.join(" ") + ")";
const levelsOf = (answer) => [...new Set((answer.targets ?? []).flatMap((target) => target.levels.map((level) => level.name)))];

function choice(answer, key, ...inside) {
  const box = make("input", { type: "checkbox", checked: !answer.off.has(key) });
  box.onchange = () => {
    box.checked ? answer.off.delete(key) : answer.off.add(key);
    draw();
  };
  return make("label", { className: "chip" }, box, ...inside);
}

function targetChoice(answer, target, number) {
  const dot = make("i", { className: "dot" });
  dot.style.background = css(answer.colors[number]);
  const score = make("span", { className: "quiet", textContent: "score " + (target.score ?? 0).toFixed(2) });
  return choice(answer, number, dot, make("span", { className: "phrase", textContent: target.phrase }), score);
}

function showHistory() {
  $(".history").hidden = view.answers.length < 2;
  $(".history ol").replaceChildren(
    ...view.answers.map((answer, number) => {
      const button = make("button", { type: "button", textContent: answer.query });
      if (number === view.shown) button.setAttribute("aria-current", "true");
      button.onclick = () => {
        view = { ...view, shown: number };
        show();
        $(".history ol").children[number].firstChild.focus();
      };
      return make("li", {}, button);
    }),
  );
}

// -- drawing ---------------------------------------------------------------------------------------------------------

// The layers of an answer, made one at a time; `wanted`: of a layer's keys, the names by which it is switched.
function* layersOf(answer, width, height, wanted = () => true) {
  for (const [number, target] of (answer?.targets ?? []).entries()) {
    for (const [at, level] of target.levels.entries()) {
      const keys = [number, level.name];
      const strength = (at + 1) / target.levels.length;
      if (wanted(keys)) yield { ...layer(level.mask, answer.colors[number], width, height), keys, strength };
    }
  }
}

const isOn = (answer) => (keys) => !keys.some((key) => answer.off.has(key));

function draw() {
  const { picture } = view;
  const answer = shown();
  canvas.hidden = !picture;
  if (!picture) return;
  Object.assign(canvas, sizeOf(picture.image, SHORTEST, LONGEST));
  if (kept.answer !== answer || kept.open) {
    kept = { answer, open: answer?.open, layers: [...layersOf(answer, canvas.width, canvas.height)] };
  }
  compose(canvas, picture.image, kept.layers.filter(({ keys }) => isOn(answer)(keys)), opacity());
  const names = (answer?.targets ?? []).map((target) => target.phrase).join(", ");
  canvas.setAttribute("aria-label", picture.name + (names ? ", marked: " + names : ""));
}

// The picture's size, scaled so that its longer side is within these.
function sizeOf({ naturalWidth, naturalHeight }, least, most) {
  const longest = Math.max(naturalWidth, naturalHeight);
  const scale = Math.min(Math.max(longest, least), most) / longest;
  return { width: Math.round(naturalWidth * scale), height: Math.round(naturalHeight * scale) };
}

const opacity = () => $(".opacity").value / 100;

// -- asking ----------------------------------------------------------------------------------------------------------

function ask(query) {
  query = query.trim();
  if (asking) return;
  if (!view.picture) return sorry("Choose a picture first: drop one here, or take one of the examples.");
  if (!query) return sorry("Ask for something in words.");
  sorry("");
  asking = ++asked;
  step({ answers: [...view.answers, { query, text: "", open: true, off: new Set() }], shown: view.answers.length });
  send(asking, query);
}

// Where the server has the picture; it is sent when that is first asked for.
function address(picture) {
  picture.address ??= upload(picture.file).then((sent) => sent.path);
  picture.address.catch(() => (picture.address = null)); // so that the next question sends it again
  return picture.address;
}

async function send(number, query) {
  try {
    const { picture } = view;
    await fetch("healthz"); // Gradio waits without end for a server that is away
    const path = await address(picture);
    if (number === asking) trigger("ask", { number, query, path, name: picture.name });
  } catch (error) {
    if (number === asking) failed("The question did not arrive: the server is away, or the picture too large for it.");
  }
}

watch("value", () => {
  const told = props.value;
  if (told?.lost && asking) return failed("The question did not arrive: the server is busy or away. Ask again soon.");
  if (!told || told.number !== asking) return; // of a question that was stopped
  const answer = view.answers[view.answers.length - 1];
  if (told.gone && !answer.again) {
    answer.again = true;
    view.picture.address = null;
    send(asking, answer.query);
  } else if (told.sorry) {
    failed(told.sorry);
  } else if (told.answer) {
    Object.assign(answer, told.answer, { query: answer.query, open: false });
    levelsOf(answer).slice(0, -1).forEach((name) => answer.off.add(name)); // at first only what was asked for
    asking = 0;
    $(".query").value = "";
    show();
  } else {
    answer.text = told.text;
    if (shown() === answer) $(".said").textContent = told.text;
  }
});

// The question is taken back, and its words stand in the box again.
function failed(text) {
  asking = 0;
  $(".query").value = view.answers[view.answers.length - 1].query;
  view = past.pop();
  show();
  sorry(text);
}

$(".ask").onsubmit = (event) => {
  event.preventDefault();
  if (!asking) return ask($(".query").value);
  trigger("stop");
  failed("");
};

// -- pictures --------------------------------------------------------------------------------------------------------

async function take(file, suggestions = []) {
  if (asking) return sorry("Wait for the answer, or stop it, before you take another picture.");
  const image = new Image();
  image.src = URL.createObjectURL(file);
  try {
    await image.decode();
  } catch (error) {
    return sorry(file.name + " is no picture that your browser can show: save it as PNG or JPEG and try again.");
  }
  sorry("");
  const picture = { name: file.name, file, image };
  step({ picture, suggestions, answers: [], shown: -1 });
  address(picture).catch(() => {}); // said when a question is asked
  $(".query").focus({ preventScroll: true });
}

$(".file").onchange = (event) => {
  const [file] = event.target.files;
  event.target.value = ""; // so that the same file can be chosen again
  if (file) take(file);
};

element.addEventListener("dragover", (event) => {
  event.preventDefault();
  $(".stage").classList.add("over");
});
element.addEventListener("dragleave", () => $(".stage").classList.remove("over"));
element.addEventListener("drop", (event) => {
  event.preventDefault();
  $(".stage").classList.remove("over");
  if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) take(event.clipboardData.files[0]);
});

for (const button of element.querySelectorAll(".example")) {
  button.onclick = async () => {
    const content = await (await fetch(button.querySelector("img").src)).blob();
    const queries = [...button.querySelectorAll("li")].map((item) => item.textContent);
    take(new File([content], button.dataset.name, { type: content.type }), queries);
  };
}

// -- tools -----------------------------------------------------------------------------------------------------------

$(".opacity").oninput = draw;

$(".undo").onclick = () => {
  view = past.pop();
  sorry("");
  show();
  $(".query").focus({ preventScroll: true });
};

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

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && asking) $(".go").click();
});

show();
