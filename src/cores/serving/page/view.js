// What the page shows follows from `view`; every step keeps the view before it, so that it can be undone.
//
// view.picture: {name, image, file, address} or null; address: a promise of where the server has it, once it was sent.
// view.answers: about this picture, oldest first; view.shown: which of them is looked at.
// An answer: {query, text, open, off} while it is said, then also what the server found (answers.py). `off`: the names
// of levels and the numbers of targets that are switched off.

const $ = (name) => element.querySelector(name);
let view = { picture: null, suggestions: [], answers: [], shown: -1 };
let past = [];
let asking = 0; // number of the question that is being answered, 0: none
let asked = 0; // questions so far

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

$(".undo").onclick = () => {
  view = past.pop();
  sorry("");
  show();
  $(".query").focus({ preventScroll: true });
};
