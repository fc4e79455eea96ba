"use strict";
/* Radiographs dropped on the page: sent for an answer, shown, and forgotten. */
(() => {
  const csrf = document.querySelector('meta[name="csrf"]').content;
  const answers = document.getElementById("answers");
  const joint = document.getElementById("joint");
  const drop = document.getElementById("drop");
  const input = document.getElementById("files");
  const say = text => { document.getElementById("status").textContent = text; };
  const warn = text => { document.getElementById("alert").textContent = text; };

  async function send(path, file) {
    let answer;
    try {
      answer = await fetch(path, {
        method: "POST", body: file, credentials: "same-origin", headers: { "x-workbench": csrf },
      });
    } catch {
      throw new Error("The server does not answer, or the file cannot be read.");
    }
    if (answer.ok || answer.status === 409) return answer;
    const text = await answer.text();
    let sentence = text;
    try { sentence = JSON.parse(text).error || text; } catch { /* plain text */ }
    throw new Error(sentence);
  }

  async function samples(file) {
    const answer = await send("/samples", file);
    if (!answer.ok) return await answer.json();
    return await samplesOf(answer);
  }

  async function heat(article, file) {
    const image = article.querySelector(".heat");
    const button = article.querySelector('[data-do="heat"]');
    if (image.hidden) {
      const answer = await send("/saliency", file);
      if (!answer.ok) throw new Error((await answer.json()).trouble);
      image.src = URL.createObjectURL(await answer.blob());
    }
    image.hidden = !image.hidden;
    button.setAttribute("aria-pressed", String(!image.hidden));
  }

  async function show(file) {
    const html = await (await send("/identify", file)).text();
    const article = document.adoptNode(
      new DOMParser().parseFromString(html, "text/html").querySelector("article"));
    answers.append(article);
    const film = new Film(article.querySelector("figure"));
    for (const button of article.querySelectorAll("[data-do]")) {
      button.addEventListener("click", () => {
        if (button.dataset.do !== "heat") return film.act(button.dataset.do);
        heat(article, file).catch(error => warn(error.message));
      });
    }
    const part = name => article.querySelector(`[data-window="${name}"]`).value / 100;
    for (const slider of article.querySelectorAll("[data-window]")) {
      slider.addEventListener("input", () => film.setWindow(part("center"), part("width")));
    }
    window.addEventListener("resize", () => film.draw());
    film.load(await samples(file));
    return article.querySelector("h2").textContent;
  }

  /* What was answered one by one is sent back, since the server keeps nothing. */
  async function together() {
    const said = Array.from(answers.querySelectorAll("[data-answer]"),
      article => JSON.parse(article.dataset.answer));
    if (said.length < 2) return;
    const html = await (await send("/joint", JSON.stringify(said))).text();
    const part = new DOMParser().parseFromString(html, "text/html").querySelector(".joint");
    joint.replaceChildren(document.adoptNode(part));
  }

  async function take(files) {
    warn("");
    answers.replaceChildren();
    joint.replaceChildren();
    answers.classList.toggle("several", files.length > 1);
    const found = [];
    for (const [at, file] of [...files].entries()) {
      say(`Radiograph ${at + 1} of ${files.length} is read.`);
      try {
        found.push(await show(file));
      } catch (error) {
        warn(`Radiograph ${at + 1}: ${error.message}`);
      }
    }
    try {
      await together();
    } catch (error) {
      warn(`Together: ${error.message}`);
    }
    say(`Answered: ${found.join(", ") || "none"}.`);
    input.value = "";
  }

  input.addEventListener("change", () => take([...input.files]));
  for (const name of ["dragover", "drop"]) {
    document.addEventListener(name, event => {
      event.preventDefault();
      drop.classList.toggle("over", name === "dragover");
      if (name === "drop") take([...event.dataTransfer.files]);
    });
  }
})();
