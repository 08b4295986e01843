"use strict";
// Texts of the data are untrusted: they become text nodes and attributes, never markup.
const data = JSON.parse(document.getElementById("data").textContent);
const SVG = document.getElementById("svg").namespaceURI;
const { methods, metrics } = data;
const all = methods.map((_, i) => i);
const inGroups = (...groups) => metrics.map((_, i) => i).filter((i) => groups.includes(metrics[i].group));
const primary = inGroups("faithfulness", "location"), protocol = inGroups("protocol");
const state = { baseline: data.baseline, sorted: null, descending: false, image: 0 };
const byId = (id) => document.getElementById(id);

// ---- Elements ---------------------------------------------------------------------------------

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}
const html = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const terms = (pairs) => pairs.flatMap(([name, value]) => [html("dt", {}, name), html("dd", {}, value)]);

function options(select, labels, chosen) {
  select.replaceChildren(...labels.map(([value, label]) => html("option", { value }, label)));
  select.value = String(chosen);
}

// A table that is wider than its place says so.
function markWide() {
  for (const region of document.querySelectorAll(".scroll"))
    region.parentElement.classList.toggle("more", region.scrollLeft + region.clientWidth < region.scrollWidth - 1);
}
function place(id, table) {
  const region = byId(id), scrolled = region.scrollLeft;
  region.replaceChildren(table);
  region.scrollLeft = scrolled;
  markWide();
}

// ---- Numbers ----------------------------------------------------------------------------------

const isNumber = (value) => typeof value === "number";
const sign = (value, digits) => (isNumber(value) ? (value > 0 ? "+" : "") + shown(value, digits) : "–");
function shown(value, digits = 3) {
  if (!isNumber(value)) return "–";
  const text = value.toFixed(digits);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "\u2212");
}
function pShown(p) {
  if (!isNumber(p)) return "";
  return p < 0.001 ? "p < 0.001" : `p = ${p.toFixed(p < 0.1 ? 3 : 2)}`;
}
const heading = (metric) => `${metric.title} ${metric.higher ? "↑" : "↓"}`;
const difference = (metric, method) => data.differences[state.baseline][metric][method];
// 1: significantly better, -1: significantly worse, 0: neither.
const outcome = (metric, method) => (difference(metric, method) || [])[6] || 0;
const OUTCOMES = { 1: ["▲", "better", "significantly better"], "-1": ["▼", "worse", "significantly worse"], 0: ["–", "same", "not significant"] };
function best(values, higher) {
  const known = values.filter(isNumber);
  return higher ? Math.max(...known) : Math.min(...known);
}

// Round positions that cover a range, three to six of them.
function ticks(low, high, count = 5) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const factor = [1, 2, 2.5, 5, 10].find((size) => size * power >= rough * (1 - 1e-9));
  const step = factor * power;
  const values = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) values.push(i * step);
  return { values, digits: Math.max(0, (factor === 2.5 ? 1 : 0) - Math.floor(Math.log10(step) + 1e-9)) };
}

// ---- How methods look -------------------------------------------------------------------------

const DASHES = ["", "7 3", "2 3", "9 3 2 3", "4 2", "12 4", "1 4", "9 3 2 3 2 3"];
const MARKS = [
  "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z", "M-4 -4h8v8h-8z", "M0 -5.5L5.5 0L0 5.5L-5.5 0z",
  "M0 -5.2L5 4H-5z", "M0 5.2L5 -4H-5z", "M-1.6 -5h3.2v3.4h3.4v3.2h-3.4v3.4h-3.2v-3.4h-3.4v-3.2h3.4z",
];
const looks = (() => {
  const used = {};
  let other = 0;
  return methods.map((name, i) => {
    const colour = /^(layer-advise|gated-grad-cam)/.test(name) ? 0 : name === "grad-cam" ? 1
      : name === "random" || name === "gaussian" ? 6 : 2 + (other++ % 4);
    const count = (used[colour] = (used[colour] ?? -1) + 1);
    return { colour: `c${colour}`, dash: DASHES[count % DASHES.length], mark: MARKS[i % MARKS.length] };
  });
})();
function mark(method, x, y, hollow, title) {
  return svg("path", {
    d: looks[method].mark, transform: `translate(${x} ${y})`, class: `mark ${hollow ? "hollow " : ""}${looks[method].colour}`,
  }, title ? svg("title", {}, title) : null);
}

// ---- Charts -----------------------------------------------------------------------------------

function canvas(width, height, label, ...children) {
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, ...children);
}
const text = (x, y, anchor, content, className) => svg("text", { x, y, "text-anchor": anchor, class: className }, content);
const line = (x1, y1, x2, y2, className) => svg("line", { x1, y1, x2, y2, class: className });
function named(x, y, anchor, name, width) {
  const most = Math.max(4, Math.floor(width / 6.6));
  if (name.length <= most) return text(x, y, anchor, name);
  return fill(text(x, y, anchor, `${name.slice(0, most - 1)}…`), {}, [svg("title", {}, name)]);
}

// A chart is drawn for its width, so that its text keeps its size; again when the width changes.
let drawnFor = 0;
function drawCharts(id, charts) {
  const region = byId(id);
  drawnFor = document.body.clientWidth;
  region.replaceChildren(...charts.map(() => html("div", { class: "panel" })));
  charts.forEach(([title, draw, note], i) => {
    const panel = region.children[i];
    panel.append(html("h3", {}, title), draw(Math.max(panel.clientWidth, 260)), note ? html("p", {}, note) : "");
  });
}

// ---- Head -------------------------------------------------------------------------------------

function writeHead() {
  const date = data.date.replace("T", " ").replace("+00:00", " UTC");
  const facts = [["Network", data.network], ["Layer", data.layer], ["Images", String(data.images)], ["Run", date]];
  byId("facts").replaceChildren(...facts.filter(([, value]) => value).map((fact) => html("div", {}, ...terms([fact]))));
  const inWords = (value) => (typeof value === "string" ? value : JSON.stringify(value).replaceAll('"', ""));
  byId("settings").replaceChildren(...terms(Object.entries(data.settings).map(([name, value]) => [name, inWords(value)])));
  document.title = `${data.network}: comparison of explanation methods`;
  const { count, shown: some } = data.failures;
  byId("failures").hidden = !count;
  byId("failures").replaceChildren(html("details", { open: count <= 3 },
    html("summary", {}, `${count} ${count === 1 ? "image" : "images"} could not be evaluated`),
    html("ul", {}, ...some.map(([file, reason]) => html("li", {}, html("strong", {}, file), ` ${reason}`))),
    some.length < count ? html("p", {}, `${count - some.length} more are in failures.csv.`) : null));
}
function writeConclusions() {
  const { first, methods: differing, last } = data.conclusions[state.baseline];
  const words = (titles) => (titles.length ? titles.join(", ") : "–");
  byId("conclusions").replaceChildren(...first.map((sentence) => html("p", {}, sentence)),
    differing.length ? html("dl", {}, ...differing.map(([method, better, worse]) => html("div", {}, html("dt", {}, method),
      better.length ? html("dd", {}, html("span", { class: "better" }, "▲ better in "), words(better)) : null,
      worse.length ? html("dd", {}, html("span", { class: "worse" }, "▼ worse in "), words(worse)) : null))) : "",
    ...last.map((sentence) => html("p", {}, sentence)));
}

// ---- Tables -----------------------------------------------------------------------------------

const GROUPS = { faithfulness: "Faithfulness", location: "Where the maps lie", protocol: "The ADVISE paper's protocol", cost: "Cost of one map" };
const rowHead = (method) => html("th", { scope: "row" }, methods[method],
  method === state.baseline ? html("small", { class: "badge" }, " (baseline)") : null);

// The best mean rank over the metrics of faithfulness comes first.
const ranked = [...all].sort((a, b) => (data.mean_ranks[a] ?? Infinity) - (data.mean_ranks[b] ?? Infinity));
function writeRanks() {
  const judging = primary.filter((i) => data.ranks[i]); // those that judge a map
  place("ranks", html("table", {},
    html("thead", {}, html("tr", {}, ...["method", "mean rank", ...judging.map((i) => metrics[i].title)].map((title) => html("th", { scope: "col" }, title)))),
    html("tbody", {}, ...ranked.map((method) => html("tr", { class: method === state.baseline ? "is-baseline" : null },
      rowHead(method), html("td", {}, html("strong", {}, shown(data.mean_ranks[method], 2))),
      ...judging.map((i) => html("td", {}, shown(data.ranks[i][method], 2))))))));
}
function order() {
  if (state.sorted === null) return all;
  const direction = state.descending ? -1 : 1;
  const value = state.sorted < 0 ? (i) => methods[i] : (i) => data.means[state.sorted][i];
  return [...all].sort((a, b) => {
    if (value(a) === null || value(b) === null) return (value(a) === null) - (value(b) === null);
    return direction * (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0);
  });
}
function sortBy(column) {
  // The best comes first, then the worst.
  const first = column >= 0 && metrics[column].higher;
  state.descending = state.sorted === column ? !state.descending : first;
  state.sorted = column;
  writeTable();
  document.querySelector(`[data-column="${column}"]`).focus();
}
function headCell(column, label, className) {
  const sorted = state.sorted !== column ? "none" : state.descending ? "descending" : "ascending";
  return html("th", { scope: "col", "aria-sort": sorted, class: className },
    html("button", { type: "button", "data-column": column, onclick: () => sortBy(column) }, label));
}
function cell(metric, method, isFirst) {
  const { digits, group, higher } = metrics[metric];
  const mean = data.means[metric][method], low = data.lows[metric][method], high = data.highs[metric][method];
  const isBest = group !== "cost" && isNumber(mean) && mean === best(data.means[metric], higher);
  const found = difference(metric, method);
  const [glyph, className, words] = OUTCOMES[outcome(metric, method)];
  return html("td", { class: isFirst ? "first" : null },
    isBest ? html("strong", { title: "best mean" }, shown(mean, digits)) : shown(mean, digits),
    isNumber(low) ? html("small", {}, `[${shown(low, digits)}, ${shown(high, digits)}]`) : null,
    found ? html("small", {
      class: className,
      title: `${words}; mean difference ${sign(found[0], digits)} [${sign(found[1], digits)}, ${sign(found[2], digits)}]; `
        + `better on ${Math.round(100 * found[3])}% of the images; without correction ${pShown(found[4])}`,
    }, `${glyph} ${pShown(found[5])}`) : null);
}
function writeTable() {
  const groups = Object.keys(GROUPS).filter((group) => inGroups(group).length);
  const grouped = (columns) => groups.flatMap((group) => inGroups(group).map((metric, i) => columns(metric, !i)));
  place("table", html("table", {},
    html("thead", {},
      html("tr", {}, html("td", {}), ...groups.map((group) =>
        html("th", { scope: "colgroup", colspan: inGroups(group).length, class: "group" }, GROUPS[group]))),
      html("tr", {}, headCell(-1, "method"), ...grouped((metric, isFirst) => headCell(metric, heading(metrics[metric]), isFirst ? "first" : null)))),
    html("tbody", {}, ...order().map((method) => html("tr", { class: method === state.baseline ? "is-baseline" : null },
      rowHead(method), ...grouped((metric, isFirst) => cell(metric, method, isFirst)))))));
}

// ---- Differences from the baseline ------------------------------------------------------------

function forest(metric, width) {
  const others = all.filter((i) => i !== state.baseline);
  const { digits, higher, title } = metrics[metric];
  const longest = Math.max(...methods.map((name) => name.length));
  const left = Math.min(14 + 6.6 * longest, width * 0.4), right = width - 76, top = 8, row = 26;
  const bottom = top + row * others.length;
  const ends = others.flatMap((i) => difference(metric, i).slice(0, 3)).filter(isNumber);
  let low = Math.min(0, ...ends), high = Math.max(0, ...ends);
  const margin = 0.08 * (high - low) || 0.5;
  low -= margin; high += margin;
  const x = (value) => left + ((value - low) / (high - low)) * (right - left);
  const { values, digits: places } = ticks(low, high, Math.max(2, Math.min(5, (right - left) / 60)));
  const shade = higher ? [x(0), right] : [left, x(0)];
  const marks = others.flatMap((i, position) => {
    const [mean, from, to, share, , p] = difference(metric, i);
    const y = top + row * (position + 0.5);
    const words = `${methods[i]}: ${sign(mean, digits)} [${sign(from, digits)}, ${sign(to, digits)}], better on ${Math.round(100 * share)}%, ${pShown(p)}`;
    return [
      named(left - 8, y + 4, "end", methods[i], left - 8),
      isNumber(from) ? line(x(from), y, x(to), y, `series ${looks[i].colour}`) : null,
      isNumber(mean) ? mark(i, x(mean), y, outcome(metric, i) === 0, words) : null,
      text(right + 8, y + 4, "start", pShown(p), "tick"),
    ];
  });
  const described = others.map((i) => `${methods[i]} ${sign(difference(metric, i)[0], digits)}, ${OUTCOMES[outcome(metric, i)][2]}`);
  return canvas(width, bottom + 36, `${title}: mean difference from ${methods[state.baseline]}. ${described.join("; ")}.`,
    svg("rect", { x: shade[0], y: top, width: Math.max(0, shade[1] - shade[0]), height: bottom - top, class: "shade" }),
    ...values.flatMap((value) => [line(x(value), top, x(value), bottom, "grid"), text(x(value), bottom + 15, "middle", shown(value, places), "tick")]),
    line(x(0), top, x(0), bottom + 3, "axis"),
    ...marks,
    text(higher ? right : left, bottom + 31, higher ? "end" : "start", higher ? "better →" : "← better", "tick"));
}
function writeForest() {
  if (methods.length > 1) drawCharts("forest", primary.map((metric) => [heading(metrics[metric]), (width) => forest(metric, width)]));
}

// ---- Curves -----------------------------------------------------------------------------------

// More lines than these cannot be told apart; the others are a click away.
const hidden = new Set(ranked.slice(7).filter((i) => i !== data.baseline));
function writeLegend() {
  byId("legend").append(...all.map((i) => html("label", {},
    html("input", { type: "checkbox", checked: !hidden.has(i), onchange: (event) => {
      if (event.target.checked) hidden.delete(i); else hidden.add(i);
      writeCurves();
    } }),
    svg("svg", { viewBox: "0 0 44 14", "aria-hidden": "true" },
      svg("line", { x1: 1, y1: 7, x2: 43, y2: 7, class: `series ${looks[i].colour}`, "stroke-dasharray": looks[i].dash }), mark(i, 22, 7)),
    methods[i])));
}
function lineChart(curve, lines, label, width) {
  const left = 44, right = width - 12, top = 10, bottom = 220;
  const known = lines.flatMap(({ mean, low, high }) => [...mean, ...low, ...high]).filter(isNumber);
  const scale = ticks(0, Math.max(0.05, ...known), 4);
  const highest = Math.max(scale.values[scale.values.length - 1], ...known);
  const across = ticks(curve.start, curve.end, width < 330 ? 3 : 5);
  const x = (share) => left + ((share - curve.start) / (curve.end - curve.start)) * (right - left);
  const y = (value) => bottom - (Math.max(0, value) / highest) * (bottom - top);
  const at = (i, count) => x(curve.start + (count > 1 ? i / (count - 1) : 0) * (curve.end - curve.start));
  const path = (points) => points.map(([px, py], i) => `${i ? "L" : "M"}${px.toFixed(1)} ${py.toFixed(1)}`).join("");
  const points = (list) => list.map((value, i) => [at(i, list.length), y(value)]);
  const bands = lines.filter(({ low }) => low.some(isNumber)).map(({ method, low, high }) =>
    svg("path", { d: `${path([...points(high), ...points(low).reverse()])}z`, class: `band ${looks[method].colour}` }));
  const drawn = lines.flatMap(({ method, mean }, position) => {
    const { colour, dash } = looks[method], own = points(mean);
    // Marks of different methods are at different steps, so that they do not hide each other.
    const every = Math.max(1, Math.floor(mean.length / 4)), offset = Math.floor((position * every) / Math.max(1, lines.length));
    return [
      svg("path", { d: path(own), class: `series ${colour}`, "stroke-dasharray": dash }, svg("title", {}, methods[method])),
      ...own.filter((_, i) => i % every === offset).map(([px, py]) => mark(method, px, py)),
    ];
  });
  return canvas(width, bottom + 40, label,
    ...scale.values.flatMap((value) => [line(left, y(value), right, y(value), "grid"), text(left - 6, y(value) + 4, "end", value.toFixed(scale.digits), "tick")]),
    ...across.values.map((value) => text(x(value), bottom + 16, "middle", value.toFixed(across.digits), "tick")),
    line(left, bottom, right, bottom, "axis"),
    text((left + right) / 2, bottom + 34, "middle", curve.x_title, "tick"),
    ...bands, ...drawn);
}
function writeCurves() {
  drawCharts("lines", data.curves.map((curve) => {
    const lines = curve.lines.map((entry, method) => entry && { method, ...entry }).filter((entry) => entry && !hidden.has(entry.method));
    const metric = metrics.findIndex(({ name }) => name === curve.name);
    const areas = lines.map(({ method }) => `${methods[method]} ${shown(data.means[metric][method])}`).join(", ");
    const fewest = Math.min(data.images, ...lines.map(({ images }) => images));
    const label = `Mean ${curve.title} curves. ${areas ? `Areas: ${areas}.` : ""}`;
    const note = `Vertical: ${curve.y_title}.${fewest < data.images ? ` Of ${fewest} of ${data.images} images.` : ""}`;
    return [curve.title, (width) => lineChart(curve, lines, label, width), note];
  }));
}

// ---- Images -----------------------------------------------------------------------------------

// A map in grey becomes heat whose opacity grows with the evidence.
function heat(source, width, height) {
  const target = html("canvas", { width, height, "aria-hidden": "true" });
  const picture = new Image();
  picture.addEventListener("load", () => {
    const context = target.getContext("2d");
    context.drawImage(picture, 0, 0, width, height);
    const pixels = context.getImageData(0, 0, width, height);
    for (let i = 0; i < pixels.data.length; i += 4) {
      const value = pixels.data[i];
      pixels.data.set([...data.colours[value], value], i);
    }
    context.putImageData(pixels, 0, 0);
  });
  picture.src = source;
  return target;
}
function writeImage() {
  const image = data.gallery[state.image], { width, height } = image;
  byId("image").value = String(state.image);
  byId("image-caption").textContent =
    `${image.file}. The maps explain ${image.target}, probability ${shown(image.confidence, 3)}`
    + `${image.predicted === image.target ? ", the predicted class." : `; the predicted class is ${image.predicted}.`}`;
  const photo = (alt) => html("img", { src: image.source, alt, width, height });
  byId("maps").replaceChildren(
    html("figure", {}, photo(`The image ${image.file}`), html("figcaption", {}, "image")),
    ...ranked.map((i) => html("figure", {},
      html("span", { class: "stack", role: "img", "aria-label": `The map of ${methods[i]} over the image ${image.file}` }, photo(""), heat(image.maps[i], width, height)),
      html("figcaption", {}, methods[i]))));
  const known = [...primary, ...protocol].filter((i) => image.values[i].some(isNumber));
  place("values", html("table", {},
    html("thead", {}, html("tr", {}, html("th", { scope: "col" }, "on this image"), ...known.map((i) => html("th", { scope: "col" }, heading(metrics[i]))))),
    html("tbody", {}, ...ranked.map((method) => html("tr", { class: method === state.baseline ? "is-baseline" : null }, rowHead(method), ...known.map((i) => {
      const value = image.values[i][method], isBest = isNumber(value) && value === best(image.values[i], metrics[i].higher);
      return html("td", {}, html(isBest ? "strong" : "span", {}, shown(value, metrics[i].digits)));
    }))))));
}
function turn(steps) {
  state.image = (state.image + steps + data.gallery.length) % data.gallery.length;
  writeImage();
}

// ---- Page -------------------------------------------------------------------------------------

function writeBaseline() {
  writeConclusions();
  byId("n-tests").textContent = data.tests;
  for (const element of document.querySelectorAll("[data-baseline]")) element.textContent = methods[state.baseline];
  writeRanks();
  writeTable();
  writeForest();
  if (data.gallery.length) writeImage();
}

writeHead();
options(byId("baseline"), methods.map((name, i) => [i, name]), state.baseline);
options(byId("image"), data.gallery.map(({ index, file }, i) => [i, `${index}: ${file}`]), 0);
byId("gallery").hidden = !data.gallery.length;
byId("differences").hidden = byId("ranking").hidden = methods.length < 2;
byId("curves").hidden = !data.curves.length;
writeLegend();
writeBaseline();
writeCurves();

byId("baseline").addEventListener("change", (event) => { state.baseline = Number(event.target.value); writeBaseline(); });
byId("image").addEventListener("change", (event) => { state.image = Number(event.target.value); writeImage(); });
byId("previous").addEventListener("click", () => turn(-1));
byId("next").addEventListener("click", () => turn(1));
addEventListener("resize", () => {
  markWide();
  if (document.body.clientWidth === drawnFor) return;
  writeForest();
  writeCurves();
});
addEventListener("scroll", markWide, { capture: true, passive: true });
// Paper has no closed parts.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const element of opened) element.open = true;
});
addEventListener("afterprint", () => { for (const element of opened) element.open = false; });
