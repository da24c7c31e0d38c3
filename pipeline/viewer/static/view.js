// What plain links and forms cannot do: the endless grid, brushing, the opacity slider, arrow keys and picking.
"use strict";
document.documentElement.classList.add("js");

const find = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// Forms: a choice submits at once, and empty fields stay out of the address.
for (const form of all("form")) {
  form.addEventListener("submit", () => {
    for (const field of form.elements) if (field.name && field.value === "") field.disabled = true;
  });
  form.addEventListener("change", (event) => {
    if (event.target.hasAttribute("data-submit")) form.requestSubmit();
  });
}
addEventListener("pageshow", () => all("form [disabled]").forEach((field) => { field.disabled = false; }));
if (matchMedia("(max-width: 52rem)").matches && find(".side") && !find(".problem")) find(".side").open = false;
find(".problem")?.scrollIntoView({ block: "center" });

// A picture that cannot be drawn: its answer says why, and is shown once at the head of the page.
let told = false;
const tell = async (picture) => {
  if (told || !picture.src) return;
  told = true;
  const answer = await fetch(picture.src).catch(() => null);
  if (answer?.ok) { told = false; return; }
  const why = answer ? await answer.text() : "the viewer does not answer; start it again.";
  const notice = Object.assign(document.createElement("p"), { className: "notice", textContent: `Some pictures cannot be shown: ${why}` });
  notice.setAttribute("role", "alert");
  find("main").before(notice);
};
addEventListener("error", (event) => { if (event.target instanceof HTMLImageElement) tell(event.target); }, true);
all("img").filter((picture) => picture.complete && !picture.naturalWidth).forEach(tell);

// Brushing: dragging over a histogram fills the two numbers beside it.
for (const bars of all("[data-brush]")) {
  const low = Number(bars.dataset.low), high = Number(bars.dataset.high), brush = find(".brush", bars);
  const width = bars.viewBox.baseVal.width;
  let from = null;
  const at = (event) => {
    const box = bars.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  };
  const draw = (to) => {
    brush.setAttribute("x", Math.min(from, to) * width);
    brush.setAttribute("width", Math.abs(to - from) * width);
  };
  bars.addEventListener("pointerdown", (event) => { from = at(event); bars.setPointerCapture(event.pointerId); draw(from); });
  bars.addEventListener("pointermove", (event) => { if (from !== null) draw(at(event)); });
  bars.addEventListener("pointercancel", () => { draw(from); from = null; });
  bars.addEventListener("pointerup", (event) => {
    const to = at(event), ends = [Math.min(from, to), Math.max(from, to)].map((part) => low + part * (high - low));
    from = null;
    if (Math.abs(ends[1] - ends[0]) < (high - low) / 200) return;
    const fields = bars.closest("fieldset").querySelectorAll("input");
    fields.forEach((field, place) => { field.value = Number(ends[place].toPrecision(4)); });
    bars.closest("form").requestSubmit();
  });
}

// One image: opacity, and the arrow keys.
const slider = find("#opacity");
if (slider) {
  const show = () => find(".maps").style.setProperty("--heat", slider.value / 100);
  slider.value = sessionStorage.getItem("opacity") || 100;
  slider.addEventListener("input", () => { sessionStorage.setItem("opacity", slider.value); show(); });
  show();
}
addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  const steps = find(".steps, .pages.always");
  const link = steps && { ArrowLeft: find("a[rel=prev]", steps), ArrowRight: find("a[rel=next]", steps) }[event.key];
  if (link && !event.target.closest(".scroll, pre")) { event.preventDefault(); link.click(); }
});

// Picking: what is ticked is kept while one scrolls and filters.
const picking = find("#picked");
const store = `picked ${location.host} ${picking?.elements.run?.value || ""}`;
const picked = new Set(JSON.parse(sessionStorage.getItem(store) || "[]"));
const tick = (root) => all("input[name=pick]", root).forEach((box) => { box.checked = picked.has(box.value); });
const count = () => {
  picking.classList.toggle("some", picked.size > 0);
  find("[data-picked]").textContent = ` (${picked.size})`;
};
if (picking) {
  addEventListener("change", (event) => {
    if (event.target.name !== "pick") return;
    picked[event.target.checked ? "add" : "delete"](event.target.value);
    sessionStorage.setItem(store, JSON.stringify([...picked]));
    count();
  });
  picking.addEventListener("submit", () => {
    all("input[name=pick]").forEach((box) => { box.checked = false; });
    for (const value of picked) {
      const field = Object.assign(document.createElement("input"), { type: "hidden", name: "pick", value });
      picking.append(field);
    }
  });
  tick(document);
  count();
}

// The endless grid: blocks of whole lines, placed where they belong, fetched when they come near, dropped when far.
const grid = find("#grid");
if (grid) {
  const total = Number(grid.dataset.total), mostHeight = 15e6, blocks = new Map();
  let columns, line, lines, each, height;

  const measure = () => {
    const list = find(".tiles", grid), style = getComputedStyle(list);
    columns = style.gridTemplateColumns.split(" ").length;
    line = find(".tile", list).getBoundingClientRect().height + parseFloat(style.rowGap);
    lines = Math.max(1, Math.floor(60 / columns));
    each = lines * columns;
    height = Math.min(mostHeight, Math.ceil(total / columns) * line);
    grid.style.height = `${height}px`;
  };
  const drop = (number) => {
    const block = blocks.get(number);
    if (block.list?.contains(document.activeElement)) return;
    block.abort.abort();
    block.list?.remove();
    blocks.delete(number);
  };
  const load = async (number) => {
    const block = { abort: new AbortController(), list: null };
    blocks.set(number, block);
    const mark = grid.dataset.more.includes("?") ? "&" : "?";
    try {
      const answer = await fetch(`${grid.dataset.more}${mark}at=${number * each}&count=${each}`, { signal: block.abort.signal });
      if (!answer.ok) throw new Error(answer.status);
      const parsed = new DOMParser().parseFromString(await answer.text(), "text/html");
      block.list = document.adoptNode(find(".tiles", parsed));
    } catch (error) {
      if (error.name === "AbortError") return;
      block.list = Object.assign(document.createElement("ul"), { className: "tiles" });
      block.list.append(Object.assign(document.createElement("li"), { textContent: "These images cannot be read now. Scroll on, or reload." }));
    }
    block.list.style.top = `${number * lines * line}px`;
    block.list.style.gridAutoRows = `${line - parseFloat(getComputedStyle(find(".tiles", grid) || block.list).rowGap || 12)}px`;
    tick(block.list);
    grid.append(block.list);
  };
  const fill = () => {
    const top = -grid.getBoundingClientRect().top, span = lines * line, last = Math.ceil(Math.min(total, height / line * columns) / each) - 1;
    const first = Math.max(0, Math.floor((top - innerHeight) / span)), end = Math.min(last, Math.floor((top + 2 * innerHeight) / span));
    for (const number of [...blocks.keys()]) if (number < first - 1 || number > end + 1) drop(number);
    for (let number = first; number <= end; number++) if (!blocks.has(number)) load(number);
  };
  const restart = () => {
    const place = Math.max(0, Math.round(-grid.getBoundingClientRect().top / line)) * columns;
    for (const number of [...blocks.keys()]) { blocks.get(number).abort.abort(); blocks.get(number).list?.remove(); }
    blocks.clear();
    return place;
  };
  let waiting = 0;
  const soon = () => { waiting ||= requestAnimationFrame(() => { waiting = 0; fill(); }); };

  measure();
  const given = find(".tiles", grid), start = Number(grid.dataset.start);
  if (total > given.children.length) {
    grid.classList.add("virtual");
    const keep = given.cloneNode(true);
    if (start) { scrollTo(0, grid.getBoundingClientRect().top + scrollY + Math.floor(start / columns) * line - 80); given.remove(); fill(); }
    else {
      [...keep.children].slice(each).forEach((tile) => tile.remove());
      given.replaceWith(keep);
      keep.style.top = "0px";
      blocks.set(0, { abort: new AbortController(), list: keep });
      fill();
    }
    addEventListener("scroll", soon, { passive: true });
    let width = innerWidth;
    addEventListener("resize", () => {
      if (innerWidth === width) return soon();
      width = innerWidth;
      const first = find(".tiles", grid);
      if (!first) return soon();
      const place = restart();
      grid.append(first);
      measure();
      first.remove();
      scrollTo(0, grid.getBoundingClientRect().top + scrollY + Math.floor(place / columns) * line);
      fill();
    });
  } else grid.style.height = "";
}
