// The view on the canvas.

const LONGEST = 1600; // pixels of its longer side: what is larger is drawn smaller,
const SHORTEST = 960; // what is smaller larger, so that outlines are fine
const canvas = $("canvas");
let kept = { layers: [] }; // of one answer

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

$(".opacity").oninput = draw;
