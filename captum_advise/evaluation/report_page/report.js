
"use strict";
// Texts of the data are untrusted: they become text nodes and attributes, never markup.
const data = JSON.parse(document.getElementById("data").textContent);
const SVG = document.getElementById("svg").namespaceURI;
const { methods, metrics } = data;
const tested = metrics.map((_, i) => i).filter((i) => metrics[i].group !== "cost");
// Those that ADVISE does not select by are open on the page.
const primary = tested.filter((i) => metrics[i].group !== "protocol");
const ofGroup = (group) => metrics.map((_, i) => i).filter((i) => metrics[i].group === group);
const state = { baseline: data.baseline, sorted: null, descending: false, hidden: new Set(), image: 0, method: 0 };
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

function options(select, labels, chosen) {
  select.replaceChildren(...labels.map(([value, label]) => html("option", { value }, label)));
  select.value = String(chosen);
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
const interval = (metric, method) => [data.lows[metric][method], data.highs[metric][method]];
// 1: significantly better, -1: significantly worse, 0: neither.
function outcome(metric, method) {
  const found = difference(metric, method);
  return found ? found[6] : 0;
}
function best(metric) {
  const values = data.means[metric].filter(isNumber);
  return metrics[metric].higher ? Math.max(...values) : Math.min(...values);
}
const OUTCOMES = { 1: ["▲", "better", "significantly better"], "-1": ["▼", "worse", "significantly worse"], 0: ["–", "same", "not significant"] };

// Round positions that cover a range, three to six of them.
function ticks(low, high, count = 5) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const factor = [1, 2, 2.5, 5, 10].find((size) => size * power >= rough * (1 - 1e-9));
  const step = factor * power;
  const first = Math.ceil(low / step - 1e-9);
  const found = [];
  for (let i = first; i * step <= high + step * 1e-9; i++) found.push(i * step);
  return { values: found, digits: Math.max(0, (factor === 2.5 ? 1 : 0) - Math.floor(Math.log10(step) + 1e-9)) };
}

// ---- How methods look -------------------------------------------------------------------------

const DASHES = ["", "7 3", "2 3", "9 3 2 3", "4 2", "12 4", "1 4", "9 3 2 3 2 3"];
const MARKS = [
  "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z", "M-4 -4h8v8h-8z", "M0 -5.5L5.5 0L0 5.5L-5.5 0z",
  "M0 -5.2L5 4H-5z", "M0 5.2L5 -4H-5z", "M-1.6 -5h3.2v3.4h3.4v3.2h-3.4v3.4h-3.2v-3.4h-3.4v-3.2h3.4z",
  "M-5 0L-2.5 -4.4H2.5L5 0L2.5 4.4H-2.5z", "M0 -5.6L1.6 -1.9L5.5 -1.7L2.4 0.8L3.4 4.6L0 2.4L-3.4 4.6L-2.4 0.8L-5.5 -1.7L-1.6 -1.9z",
];
const looks = (() => {
  const used = {};
  let other = 0;
  return methods.map((name) => {
    const colour = name.startsWith("layer-advise") ? 0 : name === "grad-cam" ? 1
      : name === "random" || name === "gaussian" ? 6 : 2 + (other++ % 4);
    const count = (used[colour] = (used[colour] ?? -1) + 1);
    return { colour: `c${colour}`, dash: DASHES[(count + (colour === 6 ? 1 : 0)) % DASHES.length] };
  }).map((look, i) => ({ ...look, mark: MARKS[i % MARKS.length] }));
})();
function mark(method, x, y, hollow, title) {
  return svg("path", {
    d: looks[method].mark, transform: `translate(${x} ${y})`, class: `mark ${hollow ? "hollow " : ""}${looks[method].colour}`,
  }, title ? svg("title", {}, title) : null);
}

// ---- Panels -----------------------------------------------------------------------------------

// A panel is drawn for its width, so that its text keeps its size; again when the width changes.
const panels = new Map();
const observer = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) {
    const panel = panels.get(target);
    if (panel && contentRect.width > 0 && Math.abs(contentRect.width - panel.width) > 1) draw(target, contentRect.width);
  }
});
function draw(element, width) {
  const panel = panels.get(element);
  panel.width = width;
  const { figure, note } = panel.render(Math.max(width, 260));
  element.replaceChildren(html("h3", {}, panel.title), figure, ...(note ? [html("p", {}, note)] : []));
}
function show(container, entries) {
  for (const child of container.children) { observer.unobserve(child); panels.delete(child); }
  container.replaceChildren();
  for (const [title, render] of entries) {
    const element = html("div", { class: "panel" });
    panels.set(element, { title, render, width: 0 });
    container.append(element);
    // A closed <details> has no width; its panels are drawn when it opens.
    draw(element, element.clientWidth || 360);
    observer.observe(element);
  }
}
function canvas(width, height, label, ...children) {
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, ...children);
}
const text = (x, y, anchor, content, className) => svg("text", { x, y, "text-anchor": anchor, class: className }, content);
const line = (x1, y1, x2, y2, className) => svg("line", { x1, y1, x2, y2, class: className });
const longest = Math.max(...methods.map((name) => name.length));
const gutter = (width) => Math.min(14 + 6.6 * longest, width * 0.4);
function fitted(name, width) {
  const most = Math.max(4, Math.floor(width / 6.6));
  return name.length <= most ? name : `${name.slice(0, most - 1)}…`;
}
function named(x, y, anchor, name, width) {
  const label = text(x, y, anchor, fitted(name, width));
  if (name !== fitted(name, width)) label.append(svg("title", {}, name));
  return label;
}

// ---- Head -------------------------------------------------------------------------------------

function writeHead() {
  const images = `${data.images}${data.failed ? ` (${data.failed} more failed, see failures.csv)` : ""}`;
  const date = data.date.replace("T", " ").replace("+00:00", " UTC");
  const facts = [["Network", data.network], ["Layer", data.layer], ["Images", images], ["Run", date]];
  byId("facts").replaceChildren(...facts.filter(([, value]) => value).map(([name, value]) =>
    html("div", {}, html("dt", {}, name), html("dd", {}, value))));
  byId("settings").replaceChildren(...data.settings.flatMap(([name, value]) => [html("dt", {}, name), html("dd", {}, value)]));
  const count = tested.length * (methods.length - 1);
  byId("n-tests").textContent = `all ${count} tests against the baseline`;
  byId("favours").textContent = methods.some((name) => name.startsWith("layer-advise"))
    ? "ADVISE selects the units with the highest AVX, so AVX and its parts favour it."
    : "";
  document.title = `${data.network}: comparison of explanation methods`;
}

// ---- Table ------------------------------------------------------------------------------------

const GROUPS = { faithfulness: "Faithfulness", location: "Where the maps lie", protocol: "The ADVISE paper's protocol", cost: "Cost of one map" };
function order() {
  const all = methods.map((_, i) => i);
  if (state.sorted === null) return all;
  const direction = state.descending ? -1 : 1;
  const value = state.sorted < 0 ? (i) => methods[i] : (i) => data.means[state.sorted][i];
  const compare = (a, b) => (a === b ? 0 : !isNumber(a) && typeof a !== "string" ? 1 : a < b ? -1 : 1);
  return all.sort((a, b) => {
    if (value(a) === null || value(b) === null) return (value(a) === null) - (value(b) === null);
    return direction * compare(value(a), value(b));
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
  const { digits, group } = metrics[metric];
  const mean = data.means[metric][method];
  const [low, high] = interval(metric, method);
  const value = shown(mean, digits);
  const isBest = group !== "cost" && isNumber(mean) && mean === best(metric);
  const found = difference(metric, method);
  const [glyph, className, words] = OUTCOMES[outcome(metric, method)];
  return html("td", { class: isFirst ? "first" : null },
    isBest ? html("strong", { title: "best mean" }, value) : value,
    isNumber(low) ? html("small", {}, `[${shown(low, digits)}, ${shown(high, digits)}]`) : null,
    found ? html("small", {
      class: className,
      title: `${words}; mean difference ${sign(found[0], digits)} [${sign(found[1], digits)}, ${sign(found[2], digits)}]; `
        + `better on ${Math.round(100 * found[3])}% of the images; without correction ${pShown(found[4])}`,
    }, `${glyph} ${pShown(found[5])}`) : null);
}
function writeTable() {
  const groups = Object.keys(GROUPS).map((group) => [group, ofGroup(group)]).filter(([, columns]) => columns.length);
  const region = byId("table");
  const scrolled = region.scrollLeft;
  region.replaceChildren(html("table", {},
    html("thead", {},
      html("tr", {}, html("td", {}), ...groups.map(([group, columns]) =>
        html("th", { scope: "colgroup", colspan: columns.length, class: "group" }, GROUPS[group]))),
      html("tr", {}, headCell(-1, "method"), ...groups.flatMap(([, columns]) =>
        columns.map((column, i) => headCell(column, heading(metrics[column]), i ? null : "first"))))),
    html("tbody", {}, ...order().map((method) =>
      html("tr", { class: method === state.baseline ? "is-baseline" : null },
        html("th", { scope: "row" }, methods[method], method === state.baseline ? html("small", { class: "badge" }, " (baseline)") : null),
        ...groups.flatMap(([, columns]) => columns.map((column, i) => cell(column, method, !i))))))));
  region.scrollLeft = scrolled;
}

// ---- Differences from the baseline ------------------------------------------------------------

function forest(metric) {
  const others = methods.map((_, i) => i).filter((i) => i !== state.baseline);
  const { digits, higher, title } = metrics[metric];
  return (width) => {
    const left = gutter(width), right = width - 76, top = 8, row = 26;
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
        isNumber(from) ? svg("line", { x1: x(from), x2: x(to), y1: y, y2: y, class: `series ${looks[i].colour}` }) : null,
        isNumber(mean) ? mark(i, x(mean), y, outcome(metric, i) === 0, words) : null,
        text(right + 8, y + 4, "start", pShown(p), "tick"),
      ];
    });
    const described = others.map((i) => `${methods[i]} ${sign(difference(metric, i)[0], digits)}, ${OUTCOMES[outcome(metric, i)][2]}`);
    const figure = canvas(width, bottom + 36, `${title}: mean difference from ${methods[state.baseline]}. ${described.join("; ")}.`,
      svg("rect", { x: shade[0], y: top, width: Math.max(0, shade[1] - shade[0]), height: bottom - top, class: "shade" }),
      ...values.flatMap((value) => [line(x(value), top, x(value), bottom, "grid"), text(x(value), bottom + 15, "middle", shown(value, places), "tick")]),
      line(x(0), top, x(0), bottom + 3, "axis"),
      ...marks.filter(Boolean),
      text(higher ? right : left, bottom + 31, higher ? "end" : "start", higher ? "better →" : "← better", "tick"));
    return { figure };
  };
}

// ---- Critical-difference diagrams -------------------------------------------------------------

function cliques(sorted, critical) {
  const found = [];
  sorted.forEach((from, i) => {
    let last = i;
    while (last + 1 < sorted.length && sorted[last + 1].rank - from.rank < critical) last++;
    if (last > i && !(found.length && found[found.length - 1][1] >= last)) found.push([i, last]);
  });
  return found;
}
function critical(metric) {
  const ranks = data.ranks[metric];
  return (width) => {
    const sorted = methods.map((name, i) => ({ name, i, rank: ranks.mean[i] }))
      .filter(({ rank }) => isNumber(rank)).sort((a, b) => a.rank - b.rank);
    const k = sorted.length, side = Math.min(24 + 6.6 * longest, width * 0.36);
    const left = side, right = width - side;
    const x = (rank) => left + ((rank - 1) / Math.max(1, k - 1)) * (right - left);
    const groups = isNumber(ranks.critical) ? cliques(sorted, ranks.critical) : [];
    const axis = 52, below = axis + 12 + 9 * groups.length, row = 21;
    const half = Math.ceil(k / 2);
    const labels = sorted.flatMap(({ name, i, rank }, position) => {
      const isLeft = position < half;
      const y = below + row * (isLeft ? position : k - 1 - position) + 8;
      const edge = isLeft ? left - 10 : right + 10;
      return [
        svg("path", { d: `M${x(rank)} ${axis}V${y}H${edge}`, class: "axis" }),
        mark(i, x(rank), axis, false, `${name}: mean rank ${shown(rank, 2)}`),
        named(isLeft ? edge - 4 : edge + 4, y + 4, isLeft ? "end" : "start", name, side - 14),
      ];
    });
    const length = isNumber(ranks.critical) ? Math.min(x(1 + ranks.critical), right) - left : 0;
    const isCut = isNumber(ranks.critical) && x(1 + ranks.critical) > right;
    const description = sorted.map(({ name, rank }) => `${name} ${shown(rank, 2)}`).join(", ");
    const joined = groups.map(([from, to]) => sorted.slice(from, to + 1).map(({ name }) => name).join(", "));
    const figure = canvas(width, below + row * half + 6,
      `${metrics[metric].title}: mean ranks ${description}. ${joined.length ? `Not different: ${joined.join("; ")}.` : "All methods differ."}`,
      length > 0 ? [line(left, 12, left + length, 12, "axis"), line(left, 8, left, 16, "axis"),
        isCut ? null : line(left + length, 8, left + length, 16, "axis"),
        text(left + length + 6, 16, "start", `CD ${shown(ranks.critical, 2)}`, "tick")].filter(Boolean) : [],
      line(left, axis, right, axis, "axis"),
      ...sorted.flatMap((_, i) => [line(x(i + 1), axis - 5, x(i + 1), axis, "axis"), text(x(i + 1), axis - 10, "middle", String(i + 1), "tick")]),
      ...groups.map(([from, to], i) => line(x(sorted[from].rank) - 4, axis + 12 + 9 * i, x(sorted[to].rank) + 4, axis + 12 + 9 * i, "clique")),
      ...labels);
    return { figure, note: isNumber(ranks.p) ? `Friedman's test: ${pShown(ranks.p)}.` : null };
  };
}

// ---- Curves -----------------------------------------------------------------------------------

function sample(method) {
  return svg("svg", { viewBox: "0 0 44 14", "aria-hidden": "true" },
    svg("line", { x1: 1, y1: 7, x2: 43, y2: 7, class: `series ${looks[method].colour}`, "stroke-dasharray": looks[method].dash }),
    mark(method, 22, 7));
}
function writeLegend() {
  byId("legend").append(...methods.map((name, i) => html("label", {},
    html("input", { type: "checkbox", checked: true, onchange: (event) => {
      if (event.target.checked) state.hidden.delete(i); else state.hidden.add(i);
      writeCurves();
    } }), sample(i), name)));
}
// Lines are {method, mean, low, high}.
function lineChart(curve, lines, label) {
  return (width) => {
    const left = 44, right = width - 12, top = 10, bottom = 220;
    const values = lines.flatMap(({ mean, low, high }) => [...mean, ...low, ...high]).filter(isNumber);
    const scale = ticks(0, Math.max(0.05, ...values), 4);
    const highest = Math.max(scale.values[scale.values.length - 1], ...values);
    const across = ticks(curve.start, curve.end, width < 330 ? 3 : 5);
    const x = (share) => left + ((share - curve.start) / (curve.end - curve.start)) * (right - left);
    const y = (value) => bottom - (Math.max(0, value) / highest) * (bottom - top);
    const at = (i, count) => x(curve.start + (count > 1 ? i / (count - 1) : 0) * (curve.end - curve.start));
    const points = (list) => list.map((value, i) => [at(i, list.length), y(value)]);
    const path = (list) => list.map(([px, py], i) => `${i ? "L" : "M"}${px.toFixed(1)} ${py.toFixed(1)}`).join("");
    const bands = lines.filter(({ low }) => isNumber(low[0])).map(({ method, low, high }) =>
      svg("path", { d: `${path(points(high))}${path(points(low).reverse()).replace("M", "L")}Z`, class: `band ${looks[method].colour}` }));
    const drawn = lines.flatMap(({ method, mean }, position) => {
      const { colour, dash } = looks[method];
      const line = points(mean);
      // Marks of different methods are at different steps, so that they do not hide each other.
      const every = Math.max(1, Math.floor(mean.length / 4));
      const offset = Math.floor((position * every) / Math.max(1, lines.length));
      return [
        svg("path", { d: path(line), class: `series ${colour}`, "stroke-dasharray": dash }, svg("title", {}, methods[method])),
        ...line.filter((_, i) => i % every === offset).map(([px, py]) => mark(method, px, py)),
      ];
    });
    const figure = canvas(width, bottom + 40, label,
      ...scale.values.flatMap((value) => [line(left, y(value), right, y(value), "grid"), text(left - 6, y(value) + 4, "end", value.toFixed(scale.digits), "tick")]),
      ...across.values.map((value) => text(x(value), bottom + 16, "middle", value.toFixed(across.digits), "tick")),
      line(left, bottom, right, bottom, "axis"),
      text((left + right) / 2, bottom + 34, "middle", curve.x, "tick"),
      ...bands, ...drawn);
    return { figure, note: `Vertical: ${curve.y}.` };
  };
}
function writeCurves() {
  const stored = data.curves.flatMap((curve) => curve.lines).filter(Boolean);
  const fewest = stored.length ? Math.min(...stored.map((entry) => entry.images)) : 0;
  byId("curves-note").textContent = stored.length
    ? (fewest < data.images ? `Curves of ${fewest} of ${data.images} images are stored.` : "")
    : "The run has no stored curves.";
  show(byId("lines"), data.curves.filter((curve) => curve.lines.some(Boolean)).map((curve) => {
    const lines = curve.lines.map((entry, method) => entry && { method, ...entry }).filter((entry) => entry && !state.hidden.has(entry.method));
    const metric = metrics.findIndex(({ name }) => name === curve.name);
    const areas = metric < 0 ? "" : lines.map(({ method }) => `${methods[method]} ${shown(data.means[metric][method])}`).join(", ");
    return [curve.title, lineChart(curve, lines, `Mean ${curve.title} curves. ${areas ? `Areas: ${areas}.` : ""}`)];
  }));
}

// ---- Cost against quality ---------------------------------------------------------------------

function scatter(cost, metric) {
  return (width) => {
    const { title, higher, digits } = metrics[metric];
    const left = 48, right = width - 16, top = 12, bottom = 232;
    const costs = data.means[cost], qualities = data.means[metric];
    const shownMethods = methods.map((_, i) => i).filter((i) => isNumber(costs[i]) && isNumber(qualities[i]));
    const positive = shownMethods.map((i) => costs[i]).filter((value) => value > 0);
    // Logarithmic, and from zero: floors cost no pass.
    const unit = positive.length ? Math.min(...positive) : 1;
    const scale = (value) => Math.log1p(value / unit);
    const most = scale(Math.max(unit, ...positive)) * 1.04;
    const x = (value) => left + 8 + (scale(value) / most) * (right - left - 16);
    // Methods of equal cost stand next to each other, so that none hides another.
    const across = [];
    const columns = methods.map((_, i) => {
      let px = x(costs[i]);
      if (shownMethods.includes(i)) {
        while (across.some((other) => Math.abs(other - px) < 6)) px += 7;
        across.push(px);
      }
      return px;
    });
    const ends = shownMethods.flatMap((i) => [qualities[i], ...interval(metric, i)]).filter(isNumber);
    let low = Math.min(...ends), high = Math.max(...ends);
    const margin = 0.08 * (high - low) || 0.1;
    low -= margin; high += margin;
    const upward = (value) => (value - low) / (high - low);
    // The better side is up.
    const y = (value) => (higher ? bottom - upward(value) * (bottom - top) : top + upward(value) * (bottom - top));
    const vertical = ticks(low, high, 5);
    const candidates = [0];
    for (let power = Math.floor(Math.log10(unit)); power <= Math.log10(Math.max(unit, ...positive)) + 1e-9; power++)
      for (const factor of [1, 2, 5]) candidates.push(factor * 10 ** power);
    const positions = [];
    for (const value of candidates)
      if (x(value) <= right && (!positions.length || x(value) - x(positions[positions.length - 1]) > 38)) positions.push(value);
    // Labels from top to bottom, each at least a line below the one before if they would overlap.
    const placed = [];
    const labels = [...shownMethods].sort((a, b) => y(qualities[a]) - y(qualities[b])).flatMap((i) => {
      const name = fitted(methods[i], width * 0.4);
      const px = columns[i], py = y(qualities[i]);
      const beside = shownMethods.map((j) => columns[j]).filter((other) => Math.abs(other - px) < 24);
      // Next to several marks, a label shows which one is its own.
      const own = beside.length > 1 ? 13 : 0, length = 6.6 * name.length + own;
      const isLeft = Math.max(...beside) + 10 + length > right;
      const anchor = isLeft ? Math.min(...beside) - 10 : Math.max(...beside) + 10;
      const from = isLeft ? anchor - length : anchor;
      let at = py;
      const overlaps = () => placed.some((box) => Math.abs(box.at - at) < 14 && box.from < from + length && from < box.to);
      while (overlaps()) at += 2;
      placed.push({ at, from, to: from + length });
      return [
        at - py > 8 ? line(px, py, anchor, at, "grid") : null,
        own ? mark(i, anchor + (isLeft ? -5 : 5), at) : null,
        text(anchor + (isLeft ? -own : own), at + 4, isLeft ? "end" : "start", name),
      ];
    }).filter(Boolean);
    const bars = shownMethods.flatMap((i) => {
      const [from, to] = interval(metric, i);
      const words = `${methods[i]}: ${title} ${shown(qualities[i], digits)}, ${metrics[cost].title} ${shown(costs[i], metrics[cost].digits)}`;
      return [
        isNumber(from) ? svg("line", { x1: columns[i], x2: columns[i], y1: y(from), y2: y(to), class: `series ${looks[i].colour}` }) : null,
        mark(i, columns[i], y(qualities[i]), false, words),
      ];
    }).filter(Boolean);
    const deepest = Math.max(bottom, ...placed.map(({ at }) => at + 8));
    const described = shownMethods.map((i) => `${methods[i]} ${shown(qualities[i], digits)} at ${shown(costs[i], metrics[cost].digits)}`);
    const figure = canvas(width, deepest + 40, `${title} against ${metrics[cost].title}. ${described.join("; ")}.`,
      ...vertical.values.flatMap((value) => [line(left, y(value), right, y(value), "grid"), text(left - 6, y(value) + 4, "end", shown(value, vertical.digits), "tick")]),
      ...positions.flatMap((value) => [line(x(value), top, x(value), deepest + 4, "grid"), text(x(value), deepest + 18, "middle", String(Number(value.toPrecision(2))), "tick")]),
      line(left, deepest + 4, right, deepest + 4, "axis"),
      text((left + right) / 2, deepest + 35, "middle", metrics[cost].title, "tick"),
      ...bars, ...labels);
    return { figure };
  };
}
function writeScatter() {
  const cost = Number(byId("cost-metric").value);
  const panel = (metric) => [heading(metrics[metric]), scatter(cost, metric)];
  show(byId("scatter"), primary.map(panel));
  show(byId("scatter-protocol"), ofGroup("protocol").map(panel));
}

// ---- Gallery ----------------------------------------------------------------------------------

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
  target.style.opacity = byId("opacity").value / 100;
  return target;
}
function stack(image, method) {
  return [html("img", { src: image.source, alt: "", width: image.width, height: image.height }), heat(image.maps[method], image.width, image.height)];
}
function writeImage() {
  const image = data.gallery[state.image];
  byId("image").value = String(state.image);
  byId("image-caption").textContent =
    `${image.file}. The maps explain ${image.target}, probability ${shown(image.confidence, 3)}`
    + `${image.predicted === image.target ? ", the predicted class." : `; the predicted class is ${image.predicted}.`}`;
  byId("photo").src = image.source;
  byId("photo").alt = `The image ${image.file}`;
  byId("photo").width = image.width;
  byId("photo").height = image.height;
  byId("strip").replaceChildren(...methods.map((name, i) => html("label", {},
    html("input", { type: "radio", name: "method", value: i, checked: i === state.method, onchange: () => { state.method = i; writeMap(); } }),
    html("span", { class: "stack" }, ...stack(image, i)),
    html("span", { class: "chosen" }, name))));
  writeMap();
}
function writeMap() {
  const image = data.gallery[state.image], { method, baseline } = state;
  const overlay = byId("overlay");
  overlay.replaceChildren(...stack(image, method));
  overlay.setAttribute("role", "img");
  overlay.setAttribute("aria-label", `The map of ${methods[method]} over the image ${image.file}`);
  byId("overlay-caption").textContent = `Map of ${methods[method]}`;
  const isBaseline = method === baseline;
  byId("image-metrics").replaceChildren(
    html("caption", { class: "badge" }, `${methods[method]} on this image`),
    html("thead", {}, html("tr", {}, html("th", { scope: "col" }, "metric"), html("th", { scope: "col" }, methods[method]),
      isBaseline ? null : html("th", { scope: "col" }, methods[baseline]))),
    html("tbody", {}, ...metrics.map((metric, i) => {
      const value = image.values[i][method], reference = image.values[i][baseline];
      const gain = isNumber(value) && isNumber(reference) ? (metric.higher ? 1 : -1) * (value - reference) : 0;
      const [glyph, className] = gain > 0 ? ["▲ ", "better"] : gain < 0 ? ["▼ ", "worse"] : ["", null];
      return html("tr", {}, html("th", { scope: "row" }, heading(metric)),
        html("td", {}, isBaseline ? null : html("span", { class: className, title: gain > 0 ? "better than the baseline" : gain < 0 ? "worse than the baseline" : null }, glyph), shown(value, metric.digits)),
        isBaseline ? null : html("td", {}, shown(reference, metric.digits)));
    })));
  const compared = isBaseline ? [method] : [method, baseline];
  show(byId("image-lines"), data.curves.map((curve, i) => {
    const lines = compared.filter((m) => image.curves[i][m]).map((m) => ({ method: m, mean: image.curves[i][m], low: [], high: [] }));
    return lines.length ? [`${curve.title}: ${compared.map((m) => methods[m]).join(" and ")}`, lineChart(curve, lines, `${curve.title} curves of this image for ${compared.map((m) => methods[m]).join(" and ")}`)] : null;
  }).filter(Boolean));
}
function turn(steps) {
  state.image = (state.image + steps + data.gallery.length) % data.gallery.length;
  writeImage();
}

// ---- Worst cases ------------------------------------------------------------------------------

function writeWorstChoices() {
  const others = methods.map((_, i) => i).filter((i) => i !== state.baseline);
  const before = Number(byId("worst-method").value || -1);
  options(byId("worst-method"), others.map((i) => [i, methods[i]]), others.includes(before) ? before : others[0]);
}
function writeWorst() {
  const method = Number(byId("worst-method").value), metric = Number(byId("worst-metric").value);
  const { digits } = metrics[metric], list = byId("worst-list");
  const entries = methods.length > 1 ? data.worst[state.baseline][method][metric] : [];
  if (!entries.length) {
    list.replaceChildren(html("p", {}, methods.length > 1
      ? `${methods[method]} loses against ${methods[state.baseline]} on no image.` : "There is only one method."));
    return;
  }
  list.replaceChildren(html("div", { class: "scroll", role: "region", "aria-label": "Worst cases", tabindex: 0 }, html("table", {},
    html("thead", {}, html("tr", {}, ...["image", "gallery", methods[method], methods[state.baseline], "difference"].map((title) =>
      html("th", { scope: "col" }, title)))),
    html("tbody", {}, ...entries.map(([index, value, reference]) => {
      const position = data.gallery.findIndex((image) => image.index === index);
      return html("tr", {}, html("td", { class: "name" }, data.files[index]),
        html("td", {}, position < 0 ? "not embedded" : html("button", { type: "button", "aria-label": `Show ${data.files[index]} in the gallery`, onclick: () => {
          state.image = position;
          state.method = method;
          writeImage();
          byId("image").focus({ preventScroll: true });
          byId("gallery").scrollIntoView();
        } }, "Show")),
        html("td", {}, shown(value, digits)), html("td", {}, shown(reference, digits)), html("td", {}, sign(value - reference, digits)));
    })))));
}

// ---- Page -------------------------------------------------------------------------------------

function writeBaseline() {
  byId("conclusions").textContent = data.conclusions[state.baseline];
  for (const element of document.querySelectorAll("[data-baseline]")) element.textContent = methods[state.baseline];
  writeTable();
  if (methods.length > 1) {
    const panel = (metric) => [heading(metrics[metric]), forest(metric)];
    show(byId("forest"), primary.map(panel));
    show(byId("forest-protocol"), ofGroup("protocol").map(panel));
    writeWorstChoices();
  }
  writeWorst();
  if (data.gallery.length) writeMap();
}

writeHead();
options(byId("baseline"), methods.map((name, i) => [i, name]), state.baseline);
options(byId("cost-metric"), ofGroup("cost").map((i) => [i, metrics[i].title]), ofGroup("cost")[0]);
options(byId("worst-metric"), tested.map((i) => [i, heading(metrics[i])]), tested[0]);
options(byId("image"), data.gallery.map((image, i) => [i, `${image.index}: ${image.file}`]), 0);
writeLegend();
if (data.gallery.length) writeImage(); else byId("gallery").hidden = true;
writeBaseline();
if (methods.length > 1) {
  const panel = (metric) => [metrics[metric].title, critical(metric)];
  show(byId("critical"), primary.map(panel));
  show(byId("critical-protocol"), ofGroup("protocol").map(panel));
} else for (const id of ["differences", "ranks", "worst"]) byId(id).hidden = true;
writeCurves();
writeScatter();

byId("baseline").addEventListener("change", (event) => { state.baseline = Number(event.target.value); writeBaseline(); });
byId("cost-metric").addEventListener("change", writeScatter);
byId("worst-method").addEventListener("change", writeWorst);
byId("worst-metric").addEventListener("change", writeWorst);
byId("image").addEventListener("change", (event) => { state.image = Number(event.target.value); writeImage(); });
byId("previous").addEventListener("click", () => turn(-1));
byId("next").addEventListener("click", () => turn(1));
byId("opacity").addEventListener("input", (event) => {
  byId("opacity-value").textContent = `${event.target.value}%`;
  for (const target of document.querySelectorAll(".stack canvas")) target.style.opacity = event.target.value / 100;
});
// Paper has no closed parts.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const element of opened) element.open = true;
});
addEventListener("afterprint", () => { for (const element of opened) element.open = false; });
