// The view in words and controls: suggestions, the sentence, levels and targets to switch, the history.

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
    ...left.map((query) => {
      const button = make("button", { type: "button", className: "chip", textContent: query });
      button.onclick = () => ask(query);
      return button;
    }),
  );
}

function showAnswer(answer) {
  $(".card").hidden = !answer;
  $(".under").hidden = !answer?.targets?.length;
  if (!answer) return;
  $(".asked").textContent = answer.query;
  $(".said").replaceChildren(...coloured(answer));
  $(".said").classList.toggle("open", Boolean(answer.open));
  const targets = answer.targets ?? [];
  $(".targets").replaceChildren(...targets.map((target, number) => targetChoice(answer, target, number)));
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

// Names of levels, in the chain's order.
function levelsOf(answer) {
  const names = (answer.targets ?? []).flatMap((target) => target.levels.map((level) => level.name));
  return [...new Set(names)];
}

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
  const sure = make("span", { className: "quiet", textContent: "confidence " + (target.confidence ?? 0).toFixed(2) });
  sure.title = "how good the mask is likely to be, from 0 to 1";
  return choice(answer, number, dot, make("span", { className: "phrase", textContent: target.phrase }), sure);
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
