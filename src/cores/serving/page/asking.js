// A question on its way to the server and the answer on its way back, through Gradio's queue.

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
  trigger("stop", { number: asking });
  failed("");
};

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && asking) $(".go").click();
});
