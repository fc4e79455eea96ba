"use strict";
/* One case after the other: fetched ahead, shown, decided. Nothing is kept beyond this page. */
(() => {
  const bar = document.getElementById("reading");
  const place = document.getElementById("case");
  const csrf = document.querySelector('meta[name="csrf"]').content;
  const { queue, words } = bar.dataset;
  const ahead = new Map();
  const state = { current: null, then: null, films: [], active: 0, id: "", seconds: 0, since: 0,
    isOne: window.matchMedia("(max-width: 60rem)").matches };
  const q = encodeURIComponent(words);

  const say = text => { document.getElementById("status").textContent = text; };
  const warn = text => { document.getElementById("alert").textContent = text; };
  const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(16)),
    byte => byte.toString(16).padStart(2, "0")).join("");

  async function ask(path, body) {
    const options = { credentials: "same-origin" };
    if (body !== undefined) {
      options.method = "POST";
      options.headers = { "content-type": "application/json", "x-workbench": csrf };
      options.body = JSON.stringify(body);
    }
    let answer;
    try {
      answer = await fetch(path, options);
    } catch {
      throw new Error("The workbench does not answer; start it again and submit once more. " +
        "Nothing that was submitted is lost.");
    }
    if (!answer.ok && answer.status !== 409 && answer.status !== 410) {
      const text = await answer.text();
      let sentence = text;
      try { sentence = JSON.parse(text).error || text; } catch { /* plain text */ }
      throw new Error(sentence);
    }
    return answer;
  }

  async function picture(id, image) {
    const answer = await ask(`/pixels/${id}/${image}`);
    if (!answer.ok) return await answer.json();
    return await samplesOf(answer);
  }

  /* A case with its radiographs; asked for once, of the next one while this one is looked at. */
  function get(id) {
    if (!ahead.has(id)) {
      const html = ask(`/case/${queue}/${id}`).then(answer => answer.text());
      const parts = html.then(text => {
        const page = new DOMParser().parseFromString(text, "text/html");
        const article = page.querySelector("article.case");
        const count = article.querySelectorAll("figure[data-image]").length;
        const pictures = Array.from({ length: count }, (_, image) =>
          picture(id, image).catch(error => ({ trouble: error.message })));
        return { article, pictures };
      });
      parts.catch(() => ahead.delete(id));
      ahead.set(id, parts);
      while (ahead.size > 3) ahead.delete(ahead.keys().next().value);
    }
    return ahead.get(id);
  }

  const active = () => state.films[state.active];

  function choose(index) {
    if (!state.films.length) return;
    state.active = (index + state.films.length) % state.films.length;
    state.films.forEach((film, at) => film.figure.classList.toggle("active", at === state.active));
    showWindow();
    active().draw();
  }

  function showWindow() {
    const film = active();
    const center = place.querySelector('[data-window="center"]');
    const width = place.querySelector('[data-window="width"]');
    if (!film || !center) return;
    center.value = 100 * film.center;
    width.value = 100 * film.width;
  }

  async function show(id) {
    warn("");
    state.current = id;
    document.getElementById("over").hidden = id !== null;
    if (id === null) {
      place.replaceChildren();
      state.films = [];
      say("Nothing is left in this queue.");
      document.getElementById("content").focus();
      return;
    }
    const begun = performance.now();
    const { article, pictures } = await get(id);
    if (state.current !== id) return;
    ahead.delete(id);
    place.replaceChildren(document.adoptNode(article));
    state.id = newId();
    state.seconds = 0;
    state.since = document.hidden ? 0 : performance.now();
    state.films = Array.from(article.querySelectorAll("figure[data-image]"), figure => new Film(figure));
    state.active = 0;
    wire(article);
    if (state.isOne) lay();
    choose(0);
    const title = article.querySelector("h2").textContent;
    say(`${title}. ${state.films.length} radiograph${state.films.length === 1 ? "" : "s"}.`);
    document.getElementById("content").focus({ preventScroll: true });
    window.scrollTo(0, 0);
    await Promise.all(pictures.map(async (promise, at) => {
      const found = await promise;
      if (state.current !== id) return;
      state.films[at].load(found);
      if (found.trouble) say(`${title}. Radiograph ${at + 1}: ${found.trouble}`);
    }));
    place.dataset.shown = id;  // when all of it is drawn, and after how many milliseconds
    place.dataset.took = Math.round(performance.now() - begun);
    if (state.then && state.then !== id) get(state.then);
  }

  function follow(answer) {
    state.then = answer.then;
    document.getElementById("progress").textContent =
      `${answer.done} of ${answer.total} read, ${answer.left} left`;
    document.getElementById("rate").textContent = answer.rate;
    return show(answer.case);
  }

  function wire(article) {
    article.querySelector("#verdict").addEventListener("submit", event => {
      event.preventDefault();
      submit();
    });
    article.querySelector("fieldset").addEventListener("change", showInstead);
    for (const button of article.querySelectorAll("[data-do]")) {
      button.addEventListener("click", () => act(button.dataset.do));
    }
    for (const slider of article.querySelectorAll("[data-window]")) {
      slider.addEventListener("input", () => {
        const part = name => article.querySelector(`[data-window="${name}"]`).value / 100;
        active()?.setWindow(part("center"), part("width"));
      });
    }
    state.films.forEach((film, at) => {
      film.onWindow = showWindow;
      film.figure.addEventListener("focusin", () => choose(at));
      film.figure.addEventListener("pointerdown", () => choose(at));
    });
  }

  const chosen = () => place.querySelector('input[name="judgement"]:checked');

  /* Where the record means nothing known, a reader may also say what it means if it is right. */
  function namesImplant(finding) {
    const isUnknown = "unknown" in place.querySelector("#verdict").dataset;
    return finding === "record_wrong" || (isUnknown && finding === "record_right");
  }

  function showInstead() {
    warn("");
    place.querySelector(".instead").hidden = !namesImplant(chosen()?.value);
  }

  function act(what) {
    if (what === "layout") return lay();
    if (what === "heat") return heat();
    if (what === "near") return near();
    if (what === "before" || what === "after") return choose(state.active + (what === "after" ? 1 : -1));
    active()?.act(what);
    showWindow();
  }

  function lay() {
    const films = place.querySelector(".films");
    const isOne = films.classList.toggle("one");
    state.isOne = isOne;
    place.querySelector('[data-do="layout"]')?.setAttribute("aria-pressed", String(!isOne));
    for (const film of state.films) film.draw();
  }

  async function heat() {
    const button = place.querySelector('[data-do="heat"]');
    const film = active();
    if (!button || !film) return;
    const image = film.figure.querySelector(".heat");
    if (!image.hidden) {
      image.hidden = true;
      button.setAttribute("aria-pressed", "false");
      return;
    }
    say("Saliency is computed.");
    try {
      const answer = await ask(`/saliency/${queue}/${state.current}/${film.figure.dataset.image}`);
      if (!answer.ok) throw new Error((await answer.json()).trouble);
      image.src = URL.createObjectURL(await answer.blob());
      image.hidden = false;
      button.setAttribute("aria-pressed", "true");
      say("Saliency is shown below the radiograph.");
    } catch (error) {
      warn(error.message);
    }
  }

  async function near() {
    const button = place.querySelector('[data-do="near"]');
    const film = active();
    if (!button || !film) return;
    const part = film.figure.querySelector(".compared");
    if (!part.hidden) {
      part.hidden = true;
      button.setAttribute("aria-pressed", "false");
      return;
    }
    say("References are looked for.");
    try {
      const answer = await ask(`/near/${queue}/${state.current}/${film.figure.dataset.image}`);
      if (!answer.ok) throw new Error((await answer.json()).trouble);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      part.replaceChildren(document.adoptNode(page.querySelector(".near")));
      part.hidden = false;
      button.setAttribute("aria-pressed", "true");
      say("References are shown below the radiograph.");
    } catch (error) {
      warn(error.message);
    }
  }

  const looked = () => state.seconds + (state.since ? (performance.now() - state.since) / 1000 : 0);

  async function submit() {
    const finding = chosen();
    if (state.current === null || state.isSending) return;
    if (!finding) {
      warn("Choose a finding first: keys 1 to 5.");
      place.querySelector('input[name="judgement"]').focus();
      return;
    }
    state.isSending = true;
    try {
      const answer = await ask("/decide", {
        id: state.id, case: state.current, queue, judgement: finding.value,
        implant: namesImplant(finding.value) ? place.querySelector("#implant").value : "",
        note: place.querySelector("#note").value, seconds: looked(), q: words,
      });
      const label = finding.closest("label").textContent.trim().slice(1).trim();
      await follow(await answer.json());
      say(`Kept: ${label}. ${document.getElementById("status").textContent}`);
    } catch (error) {
      warn(error.message);
    } finally {
      state.isSending = false;
    }
  }

  async function next(after) {
    const behind = after ? `&after=${after}` : "";
    const answer = await (await ask(`/next/${queue}?q=${q}${behind}`)).json();
    if (after && answer.case === after) say("This is the only case that is left.");
    else await follow(answer);
  }

  async function skip() {
    if (state.current) await next(state.current);
  }

  async function undo() {
    const { case: last } = await (await ask("/undo", {})).json();
    if (!last) {
      say("There is no decision of yours to undo.");
      return;
    }
    ahead.delete(last);
    const after = await (await ask(`/next/${queue}?q=${q}`)).json();
    await follow({ ...after, case: last, then: after.case === last ? after.then : after.case });
    say(`Undone. ${document.getElementById("status").textContent}`);
  }

  const guarded = work => () => Promise.resolve(work()).catch(error => warn(error.message));
  document.getElementById("undo").addEventListener("click", guarded(undo));
  document.getElementById("skip").addEventListener("click", guarded(skip));
  const help = document.getElementById("help");
  const toggleHelp = () => {
    const keys = document.getElementById("keys");
    keys.hidden = !keys.hidden;
    help.setAttribute("aria-expanded", String(!keys.hidden));
  };
  help.addEventListener("click", toggleHelp);

  const windowBy = (center, width) => {
    const film = active();
    film?.setWindow(film.center + center, film.width * width);
    if (film) showWindow();
  };
  const keys = {
    n: () => place.querySelector("#note")?.focus(),
    u: guarded(undo), s: guarded(skip), "?": toggleHelp,
    "[": () => choose(state.active - 1), "]": () => choose(state.active + 1),
    g: () => act("layout"), i: () => act("invert"), r: () => act("rotate"), h: () => act("heat"),
    e: () => act("near"),
    "+": () => act("in"), "=": () => act("in"), "-": () => act("out"), "0": () => act("reset"),
    w: () => windowBy(0, 0.85), W: () => windowBy(0, 1 / 0.85),
    l: () => windowBy(-0.04, 1), L: () => windowBy(0.04, 1),
    ArrowLeft: () => active()?.move(-40, 0), ArrowRight: () => active()?.move(40, 0),
    ArrowUp: () => active()?.move(0, -40), ArrowDown: () => active()?.move(0, 40),
  };

  function pick(number) {
    const radio = place.querySelectorAll('input[name="judgement"]')[number - 1];
    if (!radio) return;
    radio.checked = true;
    radio.focus();
    showInstead();
    if (namesImplant(radio.value)) place.querySelector("#implant").focus();
  }

  document.addEventListener("keydown", event => {
    const target = event.target;
    if (event.ctrlKey && event.key === "Enter") return void submit();
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const isText = target.matches("textarea, input:not([type])");
    if (isText) {
      if (event.key === "Escape") document.getElementById("content").focus();
      return;
    }
    if (event.key === "Enter" && !target.matches("a, button, input[type=radio]")) {
      event.preventDefault();
      return void submit();
    }
    if (!document.getElementById("single").checked) return;
    if (target.matches("input[type=range], input[type=radio]") && event.key.startsWith("Arrow")) return;
    if (/^[1-5]$/.test(event.key)) {
      event.preventDefault();
      return pick(Number(event.key));
    }
    const work = keys[event.key];
    if (work && !(event.key.startsWith("Arrow") && target.matches("a, button"))) {
      event.preventDefault();
      work();
    }
  });

  document.addEventListener("visibilitychange", () => {
    state.seconds = looked();
    state.since = document.hidden ? 0 : performance.now();
    if (document.hidden) state.since = 0;
  });
  window.addEventListener("resize", () => state.films.forEach(film => film.draw()));

  guarded(async () => {
    const answer = await (await ask(`/next/${queue}?q=${q}`)).json();
    const first = bar.dataset.first;
    await follow(first ? { ...answer, case: first, then: answer.case } : answer);
  })();
})();
