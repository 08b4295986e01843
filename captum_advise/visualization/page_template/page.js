"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  const ARRAYS = { uint8: Uint8Array, uint16: Uint16Array, int32: Int32Array, float32: Float32Array };
  const PER_PAGE = 10, LEVELS = 65535;

  // All text enters the page through textContent: names of files and classes are not trusted.
  const element = (tag, text = "", className = "") => {
    const node = document.createElement(tag);
    node.textContent = text;
    node.className = className;
    return node;
  };
  const unpack = (packed) => {
    const bytes = Uint8Array.from(atob(packed.data), (letter) => letter.charCodeAt(0));
    return new ARRAYS[packed.dtype](bytes.buffer);
  };
  const number = (value) => (value === 0 ? "0" : Math.abs(value) < 1e-3 || Math.abs(value) >= 1e4
    ? value.toExponential(1) : String(Number(value.toPrecision(3))));
  const percent = (value) => `${(100 * value).toFixed(1)}%`;
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  const colours = unpack(data.colours);
  const state = { example: 0, map: 0, comparison: null, opacity: 0.65, position: null, held: false, unit: null, listed: PER_PAGE };
  let example, units, ranked;

  // --- images that answer to pointer and keyboard

  function makeStage(id, label) {
    const root = byId(id);
    const image = element("img"), canvas = element("canvas"), cell = element("div", "", "cell");
    cell.hidden = true;
    root.append(image, canvas, cell);
    root.tabIndex = 0;
    root.setAttribute("role", "application");
    root.setAttribute("aria-roledescription", "image with heat");
    root.addEventListener("pointermove", (event) => {
      if (!state.held && event.pointerType !== "touch") moveTo(positionOf(root, event));
    });
    root.addEventListener("click", (event) => {
      const position = positionOf(root, event);
      const again = state.held && state.position && position.every((value, axis) => value === state.position[axis]);
      state.held = !again;
      moveTo(position);
    });
    root.addEventListener("keydown", onStageKey);
    return {
      show(values, shape, description) {
        image.src = example.image;
        image.alt = "";
        image.width = example.size[1];
        image.height = example.size[0];
        root.classList.toggle("plain", !values);
        root.setAttribute("aria-label", `${label}: ${description}. Arrow keys move the position, Enter holds it, Escape leaves it.`);
        heat.draw(canvas, values, shape, example.size, colours);
        this.mark();
      },
      mark() {
        canvas.style.opacity = state.opacity;
        root.classList.toggle("held", state.held);
        cell.hidden = !state.position;
        if (!state.position) return;
        const [rows, columns] = example.layer, [row, column] = state.position;
        cell.style.left = `${(100 * column) / columns}%`;
        cell.style.top = `${(100 * row) / rows}%`;
        cell.style.width = `${100 / columns}%`;
        cell.style.height = `${100 / rows}%`;
      },
    };
  }

  function positionOf(root, event) {
    const box = root.getBoundingClientRect();
    const parts = [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width];
    return parts.map((part, axis) => clamp(Math.floor(part * example.layer[axis]), 0, example.layer[axis] - 1));
  }

  function onStageKey(event) {
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const step = steps[event.key];
    if (step) {
      const start = state.position ?? example.layer.map((length) => Math.floor(length / 2));
      const next = state.position ? start.map((value, axis) => clamp(value + step[axis], 0, example.layer[axis] - 1)) : start;
      moveTo(next);
    } else if (event.key === "Enter" && state.position) {
      state.held = !state.held;
      markAll();
    } else if (event.key === "Escape") {
      leave();
    } else return;
    event.preventDefault();
  }

  function moveTo(position) {
    const same = state.position && position.every((value, axis) => value === state.position[axis]);
    state.position = position;
    markAll();
    if (same) return;
    state.listed = PER_PAGE;
    showRanking();
    announce();
  }

  function leave() {
    state.position = null;
    state.held = false;
    markAll();
    showRanking();
    announce();
  }

  const stages = { map: makeStage("map-stage", "Map"), comparison: makeStage("comparison-stage", "Comparison"), unit: makeStage("unit-stage", "Unit") };
  const markAll = () => Object.values(stages).forEach((stage) => stage.mark());

  const placeText = () => state.position
    ? `Row ${state.position[0] + 1} of ${example.layer[0]}, column ${state.position[1] + 1} of ${example.layer[1]}` : "Whole image";

  let waiting;
  function announce() {
    clearTimeout(waiting); // else a moving pointer floods a screen reader
    waiting = setTimeout(() => {
      const best = ranked.slice(0, 3).map(({ place, share }) => `unit ${units.index[place]} ${percent(share)}`);
      byId("live").textContent = `${placeText()}: ${units ? best.join(", ") || "no unit has evidence" : "units are not in this page"}.`;
    }, 200);
  }

  // --- units

  function unpackUnits(packed) {
    if (!packed) return null;
    const found = { count: packed.count, index: unpack(packed.index), relevance: packed.relevance && unpack(packed.relevance) };
    for (const name of ["activations", "low", "step", "factor", "evidence", "ranges", "curves"]) found[name] = unpack(packed[name]);
    return { ...found, modes: packed.modes, points: packed.curves.shape[1], places: new Map(Array.from(found.index, (unit, place) => [unit, place])) };
  }

  const positions = () => example.layer[0] * example.layer[1];
  const activation = (place, position) => units.low[place] + units.step[place] * units.activations[place * positions() + position];
  const currentMap = () => example.maps[state.map];

  function isMember(map) {
    const members = map.units && new Set(unpack(map.units));
    return (unit) => map.n_units !== null && (!members || members.has(unit));
  }

  function rank() {
    if (!units) return [];
    const isIn = isMember(currentMap());
    const position = state.position && state.position[0] * example.layer[1] + state.position[1];
    const values = Array.from(units.index, (_, place) => position === null
      ? units.evidence[place] : Math.max(units.factor[place] * activation(place, position), 0));
    const total = position === null ? 1 : values.reduce((sum, value) => sum + value, 0);
    return values
      .map((value, place) => ({ place, share: total > 0 ? value / total : 0, member: isIn(units.index[place]) }))
      .filter(({ share }) => share > 0)
      .sort((a, b) => b.share - a.share);
  }

  function showRanking() {
    byId("place").textContent = placeText();
    byId("whole").classList.toggle("idle", !state.position);
    ranked = rank();
    const list = byId("ranking");
    const focused = list.contains(document.activeElement);
    list.replaceChildren(...ranked.slice(0, state.listed).map(({ place, share, member }) => {
      const unit = units.index[place];
      const button = element("button", "", member ? "member" : "");
      button.type = "button";
      button.dataset.unit = unit;
      if (unit === state.unit) button.setAttribute("aria-current", "true");
      const relevance = units.relevance ? `, relevance ${units.relevance[place]}` : "";
      button.setAttribute("aria-label", `Unit ${unit}${relevance}, ${percent(share)} of the evidence${member ? "" : ", not in the map"}`);
      const length = element("span", "", "length");
      length.style.width = `${(100 * share) / ranked[0].share}%`;
      button.append(element("span", unit), length, element("span", percent(share), "share"));
      button.addEventListener("click", () => showUnit(unit));
      const item = element("li");
      item.append(button);
      return item;
    }));
    if (units && !ranked.length) list.append(element("li", "No unit has evidence here."));
    if (focused) list.querySelector("[aria-current]")?.focus();
    byId("more").classList.toggle("idle", ranked.length <= state.listed);
  }

  function showUnit(unit) {
    state.unit = unit;
    const place = units.places.get(unit);
    const values = Array.from({ length: positions() }, (_, position) => activation(place, position) - units.low[place]);
    byId("density-title").textContent = `Unit ${unit} of ${units.count}: density of its activations`;
    byId("unit").value = unit;
    byId("unit").setCustomValidity("");
    stages.unit.show(values, example.layer, `activation of unit ${unit}`);
    const facts = [
      ["Relevance", units.relevance ? units.relevance[place] : null],
      ["Share of the evidence", percent(units.evidence[place])],
      ["Activation", `${number(units.low[place])} to ${number(units.low[place] + LEVELS * units.step[place])}`],
      ["Mean gradient", number(units.factor[place])],
      ["In the map", currentMap().n_units === null ? null : isMember(currentMap())(unit) ? "yes" : "no"],
    ];
    byId("facts").replaceChildren(...facts.filter(([, value]) => value !== null).map(([name, value]) => {
      const pair = element("div");
      pair.append(element("dt", name), element("dd", value));
      return pair;
    }));
    showDensity(place);
    showRanking();
  }

  // A curve from 0 to 1 of the range that counts, with what lies beyond it on either side.
  function showDensity(place) {
    const svg = byId("density"), [low, high] = units.ranges.subarray(2 * place, 2 * place + 2);
    svg.replaceChildren();
    const shape = (name, attributes, text) => {
      const node = document.createElementNS(SVG, name);
      for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
      if (text !== undefined) node.textContent = text;
      svg.append(node);
    };
    const left = -0.18, right = 1.18;
    const x = (value) => 22 + (386 * (value - left)) / (right - left), y = (value) => 106 - 92 * value;
    const word = (at, height, text) => shape("text", { x: at, y: height, "text-anchor": "middle" }, text);
    for (const [from, to] of [[left, 0], [1, right]])
      shape("rect", { class: "outside", x: x(from), width: x(to) - x(from), y: 6, height: 114 });
    shape("line", { class: "axis", x1: x(left), x2: x(right), y1: 120, y2: 120 });
    for (const value of [0, 0.5, 1]) word(x(value), 134, number(low + value * (high - low)));
    word(x(0.5), 152, "activation");
    shape("text", { transform: "translate(12 60) rotate(-90)", "text-anchor": "middle" }, "density");
    const rounding = units.step[place] / 2;
    let inside = 0, below = 0;
    for (let position = 0; position < positions(); position++) {
      const value = activation(place, position), part = high > low ? (value - low) / (high - low) : NaN;
      if (value >= low - rounding && value <= high + rounding) inside++;
      else if (value < low) below++;
      if (part >= left && part <= right) shape("line", { class: "sample", x1: x(part), x2: x(part), y1: 111, y2: 119 });
    }
    const above = positions() - inside - below;
    if (below) word(x(left / 2), 20, `${below} below`);
    if (above) word(x(1 - left / 2), 20, `${above} above`);
    const curve = units.curves.subarray(place * units.points, (place + 1) * units.points);
    const range = `${number(low)} to ${number(high)}`;
    if (!curve.some((value) => value > 0)) {
      byId("density-note").textContent = `No density: it is not defined for so few different activations from ${range}, ${inside} of ${positions()}.`;
      return;
    }
    const points = Array.from(curve, (value, point) => `${x(point / (units.points - 1)).toFixed(1)},${y(value / 255).toFixed(1)}`);
    shape("polyline", { class: "curve", points: points.join(" ") });
    const modes = units.modes[place];
    for (const [value, height] of modes) shape("circle", { class: "mode", cx: x(value), cy: y(height), r: 4.5 });
    const where = modes.map(([value]) => number(low + value * (high - low))).join(", ");
    const text = modes.length ? `${modes.length} mode${modes.length > 1 ? "s" : ""} at ${where}.` : "No mode inside the range.";
    byId("density-note").textContent = `${text} A tick is an activation. Those from ${range} count, ${inside} of ${positions()}; the rest is shaded.`;
  }

  function stepUnit(step) {
    if (!ranked.length) return;
    const now = ranked.findIndex(({ place }) => units.index[place] === state.unit);
    const next = now < 0 ? 0 : (now + step + ranked.length) % ranked.length;
    state.listed = Math.max(state.listed, next + 1);
    showUnit(units.index[ranked[next].place]);
    byId("ranking").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
  }

  // --- maps and their metrics

  const describe = (map) => map.name + (map.selected ? " ✓" : "");
  function note(map) {
    const count = map.n_units === null ? `${map.values.shape.join(" x ")} positions` : `${map.n_units} unit${map.n_units === 1 ? "" : "s"}`;
    const avx = map.metrics && map.metrics.avx !== null ? `AVX ${map.metrics.avx.toFixed(3)}` : "";
    const evidence = unpack(map.values).some((value) => value > 0) ? "" : "no evidence";
    return [map.selected ? "selected" : "", count, avx, evidence].filter(Boolean).join(", ");
  }

  function showMap(index) {
    state.map = index;
    const map = currentMap();
    byId("map").value = index;
    byId("map-note").textContent = note(map);
    stages.map.show(unpack(map.values), map.values.shape, map.name);
    const column = inTable().indexOf(map);
    for (const row of document.querySelectorAll("table tr"))
      Array.from(row.children).forEach((cell, place) => cell.classList.toggle("current", place === column + 1 && column >= 0));
    document.querySelectorAll("thead button").forEach((button, place) => button.setAttribute("aria-pressed", place === column));
    if (column >= 0) scrollTo(byId("metrics-head").children[column + 1], byId("metrics-head").children[0]);
    if (units && state.unit !== null) showUnit(state.unit);
    else showRanking();
  }

  function scrollTo(head, label) {
    const frame = document.querySelector(".scroll"), start = head.offsetLeft - frame.scrollLeft;
    if (start < label.offsetWidth || start + head.offsetWidth > frame.clientWidth)
      frame.scrollLeft = head.offsetLeft - label.offsetWidth;
  }

  const stepMap = (step) => showMap((state.map + step + example.maps.length) % example.maps.length);

  function showComparison(index) {
    state.comparison = index;
    const map = example.maps[index];
    byId("comparison").value = index;
    byId("comparison-note").textContent = map ? note(map) : "Without heat";
    if (map) stages.comparison.show(unpack(map.values), map.values.shape, map.name);
    else stages.comparison.show(null, null, "the image without heat");
  }

  const cellText = (value) => value === null || value === undefined ? "–"
    : typeof value === "boolean" ? (value ? "yes" : "no") : value.toFixed(3);

  // A map without units has nothing to show in the table.
  const inTable = () => example.maps.filter((map) => map.n_units !== null);

  function showTable() {
    const all = inTable();
    const heads = all.map((map) => {
      const head = element("th"), button = element("button", map.name);
      head.scope = "col";
      button.type = "button";
      button.addEventListener("click", () => showMap(example.maps.indexOf(map)));
      head.append(button);
      if (map.selected) head.append(element("span", "selected"));
      return head;
    });
    byId("metrics-head").replaceChildren(element("td"), ...heads);
    const line = (label, texts) => {
      const row = element("tr"), head = element("th", label);
      head.scope = "row";
      row.append(head, ...texts.map((text) => element("td", text)));
      return row;
    };
    const rows = data.metrics
      .filter(({ key }) => all.some((map) => (map.metrics?.[key] ?? null) !== null))
      .map(({ key, label }) => line(label, all.map((map) => cellText(map.metrics?.[key]))));
    byId("metrics").replaceChildren(line("units", all.map((map) => map.n_units)), ...rows);
  }

  function optionsOf(texts, first = 0) {
    return texts.map((text, index) => {
      const option = element("option", text);
      option.value = first + index;
      return option;
    });
  }

  // The methods' maps, then the groups', in lists of their own.
  function fillMaps(select, ...more) {
    const of = (kind) => example.maps.filter((map) => map.kind === kind).map(describe);
    const methods = of("method"), groups = of("group");
    const lists = [["Methods", methods, 0], ["Groups of units", groups, methods.length], ["No map", more, example.maps.length]];
    select.replaceChildren(...lists.filter(([, texts]) => texts.length).map(([label, texts, first]) => {
      const list = element("optgroup");
      list.label = label;
      list.append(...optionsOf(texts, first));
      return list;
    }));
  }

  function showExample(index) {
    state.example = index;
    example = data.examples[index];
    units = unpackUnits(example.units);
    Object.assign(state, { position: null, held: false, listed: PER_PAGE, unit: null });
    byId("headline").textContent = example.class ?? example.name ?? "Explanation";
    const confidence = example.confidence === null ? null : `confidence ${percent(example.confidence)}`;
    byId("summary").textContent = [example.name, confidence, `LayerAdvise: ${example.selection}`].filter(Boolean).join(" · ");
    byId("classes").hidden = !example.top.length;
    byId("top").replaceChildren(...example.top.map(({ name, confidence }) => {
      const item = element("li", name);
      item.append(element("span", percent(confidence)));
      return item;
    }));
    fillMaps(byId("map"));
    fillMaps(byId("comparison"), "Image");
    showTable();
    for (const id of ["previous-map", "next-map"]) byId(id).hidden = example.maps.length < 2;
    for (const id of ["ranking-card", "unit-card", "density-card", "hint"]) byId(id).hidden = !units;
    document.querySelector("main").classList.toggle("maps-only", !units);
    const methods = example.maps.filter(({ kind }) => kind === "method").length;
    showComparison(Math.min(state.comparison ?? methods - 1, example.maps.length));
    showMap(0);
    if (!units) return;
    byId("unit").max = units.count - 1;
    const best = ranked.find(({ member }) => member) ?? ranked[0];
    showUnit(best ? units.index[best.place] : units.index[0]);
  }

  // --- controls

  byId("example-control").hidden = data.examples.length < 2;
  byId("example").replaceChildren(...optionsOf(data.examples.map(({ name, class: label }, index) => [`${index + 1}`, name, label].filter(Boolean).join(" · "))));
  byId("example").addEventListener("change", (event) => showExample(Number(event.target.value)));
  byId("map").addEventListener("change", (event) => showMap(Number(event.target.value)));
  byId("previous-map").addEventListener("click", () => stepMap(-1));
  byId("next-map").addEventListener("click", () => stepMap(1));
  byId("comparison").addEventListener("change", (event) => showComparison(Number(event.target.value)));
  byId("opacity").addEventListener("input", (event) => {
    state.opacity = event.target.value / 100;
    byId("opacity-value").textContent = `${event.target.value}%`;
    markAll();
  });
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("whole").addEventListener("click", () => {
    leave();
    byId("map-stage").focus(); // the button vanishes
  });
  byId("more").addEventListener("click", () => {
    state.listed += 4 * PER_PAGE;
    showRanking();
  });
  byId("previous-unit").addEventListener("click", () => stepUnit(-1));
  byId("next-unit").addEventListener("click", () => stepUnit(1));
  byId("unit").addEventListener("change", (event) => {
    const unit = Number(event.target.value || state.unit);
    if (units.places.has(unit)) {
      showUnit(unit);
      return;
    }
    event.target.setCustomValidity(`The page has no unit ${event.target.value}.`);
    event.target.reportValidity();
  });

  const scale = byId("scale").getContext("2d"), picture = scale.createImageData(256, 1);
  for (let level = 0; level < 256; level++) picture.data.set([...colours.subarray(3 * level, 3 * level + 3), level], 4 * level);
  scale.putImageData(picture, 0, 0);
  // A page that frames this one may not look into it, and needs its height.
  if (parent !== window) {
    const tell = () => parent.postMessage({ explanationHeight: Math.ceil(document.documentElement.getBoundingClientRect().height) }, "*");
    new ResizeObserver(tell).observe(document.body);
  }
  // Paper has no closed parts.
  let wasOpen = false;
  addEventListener("beforeprint", () => { wasOpen = byId("help").open; byId("help").open = true; });
  addEventListener("afterprint", () => { byId("help").open = wasOpen; });
  // A browser may restore the slider of an earlier visit.
  byId("opacity").value = 65;
  showExample(0);
})();
