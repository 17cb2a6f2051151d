// Where pictures come from: chosen, dropped, pasted, or one of the examples.

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
