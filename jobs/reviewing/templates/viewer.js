"use strict";
/* The samples that an answer holds, row by row. */
async function samplesOf(answer) {
  const bits = Number(answer.headers.get("x-bits"));
  const data = await answer.arrayBuffer();
  return {
    rows: Number(answer.headers.get("x-rows")), columns: Number(answer.headers.get("x-columns")),
    bits, samples: bits === 16 ? new Uint16Array(data) : new Uint8Array(data),
  };
}

/* A radiograph on a canvas: its own samples, shown through a window; moved, enlarged, turned. */
class Film {
  constructor(figure) {
    this.figure = figure;
    this.canvas = figure.querySelector("canvas");
    this.trouble = figure.querySelector(".trouble");
    this.film = document.createElement("canvas");
    this.samples = null;
    this.pointers = new Map();
    this.reset();
    this.listen();
  }

  reset() {
    this.center = 0.5; this.width = 1; this.isInverted = false;
    this.turns = 0; this.zoom = 1; this.x = 0; this.y = 0;
  }

  load(picture) {
    if (picture.trouble) {
      this.trouble.textContent = picture.trouble;
      this.trouble.hidden = false;
      this.canvas.hidden = true;
      return;
    }
    this.samples = picture.samples;
    this.film.width = picture.columns;
    this.film.height = picture.rows;
    this.greys = picture.bits === 16 ? 65536 : 256;
    this.expose();
  }

  /* The window as a table of greys, and the samples through it: 5 million take some 15 ms. */
  expose() {
    if (!this.samples) return;
    const table = new Uint32Array(this.greys);
    const low = (this.center - this.width / 2) * (this.greys - 1);
    const span = Math.max(this.width * (this.greys - 1), 1);
    for (let value = 0; value < this.greys; value++) {
      const share = Math.min(Math.max((value - low) / span, 0), 1);
      const grey = Math.round(255 * (this.isInverted ? 1 - share : share));
      table[value] = 0xff000000 | (grey << 16) | (grey << 8) | grey;
    }
    const context = this.film.getContext("2d", { alpha: false });
    const image = context.createImageData(this.film.width, this.film.height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let place = 0; place < pixels.length; place++) pixels[place] = table[this.samples[place]];
    context.putImageData(image, 0, 0);
    this.draw();
  }

  draw() {
    const box = this.canvas.getBoundingClientRect();
    if (!this.samples || !box.width) return;
    const dense = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(box.width * dense);
    this.canvas.height = Math.round(box.height * dense);
    const context = this.canvas.getContext("2d", { alpha: false });
    const isTurned = this.turns % 2 === 1;
    const [width, height] = isTurned
      ? [this.film.height, this.film.width] : [this.film.width, this.film.height];
    const scale = Math.min(this.canvas.width / width, this.canvas.height / height) * this.zoom;
    context.imageSmoothingQuality = "high";
    context.imageSmoothingEnabled = scale < 2;
    context.translate(
      this.canvas.width / 2 + this.x * dense, this.canvas.height / 2 + this.y * dense);
    context.rotate(this.turns * Math.PI / 2);
    context.scale(scale, scale);
    context.drawImage(this.film, -this.film.width / 2, -this.film.height / 2);
  }

  setWindow(center, width) {
    this.center = Math.min(Math.max(center, 0), 1);
    this.width = Math.min(Math.max(width, 0.01), 2);
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.expose(); });
  }

  enlarge(factor) {
    const zoom = Math.min(Math.max(this.zoom * factor, 0.25), 40);
    this.x *= zoom / this.zoom; this.y *= zoom / this.zoom;
    this.zoom = zoom;
    this.draw();
  }

  move(x, y) { this.x += x; this.y += y; this.draw(); }

  act(what) {
    if (what === "in") this.enlarge(1.25);
    if (what === "out") this.enlarge(0.8);
    if (what === "rotate") {
      this.turns = (this.turns + 1) % 4;
      [this.x, this.y] = [-this.y, this.x];
      this.draw();
    }
    if (what === "invert") { this.isInverted = !this.isInverted; this.expose(); }
    if (what === "reset") { this.reset(); this.expose(); }
  }

  listen() {
    const canvas = this.canvas;
    canvas.addEventListener("wheel", event => {
      event.preventDefault();
      this.enlarge(event.deltaY < 0 ? 1.15 : 1 / 1.15);
    }, { passive: false });
    canvas.addEventListener("pointerdown", event => {
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, event);
    });
    canvas.addEventListener("pointermove", event => this.drag(event));
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, event => this.pointers.delete(event.pointerId));
    }
    canvas.addEventListener("dblclick", () => this.act("reset"));
  }

  drag(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const others = [...this.pointers.values()].filter(one => one.pointerId !== event.pointerId);
    if (others.length) {
      const apart = one => Math.hypot(one.clientX - others[0].clientX, one.clientY - others[0].clientY);
      this.enlarge(apart(event) / Math.max(apart(before), 1));
    } else if (event.shiftKey || event.buttons === 2) {
      this.setWindow(this.center + (event.clientY - before.clientY) / 500,
        this.width + (event.clientX - before.clientX) / 250);
      this.onWindow?.();
    } else {
      this.move(event.clientX - before.clientX, event.clientY - before.clientY);
    }
    this.pointers.set(event.pointerId, event);
  }
}
