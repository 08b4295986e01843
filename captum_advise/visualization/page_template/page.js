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
    ? value.toExponential(1) : value.toPrecision(3));
  const percent = (value) => `${(100 * value).toFixed(1)}%`;
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  const colours = unpack(data.colours);
  const state = { example: 0, map: 0, comparison: 0, opacity: 0.65, position: null, held: false, unit: null, listed: PER_PAGE };
  let example, units, ranked;

  // --- heat, as captum_advise.pixels.upsample_maps makes it

  function taps(length, size) {
    return Array.from({ length: size }, (_, index) => {
      const centre = ((index + 0.5) * length) / size - 0.5;
      const first = Math.floor(centre) - 1;
      const found = [];
      for (let place = Math.max(first, 0); place <= Math.min(first + 3, length - 1); place++) {
        const x = Math.abs(place - centre); // Keys' cubic with a = -0.5
        const weight = x <= 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
        found.push([place, weight]);
      }
      const total = found.reduce((sum, [, weight]) => sum + weight, 0);
      return found.map(([place, weight]) => [place, weight / total]);
    });
  }

  function normalized(values) {
    const positive = Float64Array.from(values, (value) => Math.max(value, 0));
    const low = positive.reduce((a, b) => Math.min(a, b), Infinity);
    const high = positive.reduce((a, b) => Math.max(a, b), 0);
    if (high - low <= 1e-6 * high) return positive.fill(high > 0 ? 1 : 0);
    return positive.map((value) => (value - low) / (high - low));
  }

  function enlarged(values, [rows, columns], [height, width]) {
    const down = taps(rows, height), across = taps(columns, width);
    const wide = new Float64Array(rows * width), result = new Float64Array(height * width);
    for (let row = 0; row < rows; row++)
      for (let x = 0; x < width; x++)
        for (const [column, weight] of across[x]) wide[row * width + x] += weight * values[row * columns + column];
    for (let y = 0; y < height; y++)
      for (const [row, weight] of down[y])
        for (let x = 0; x < width; x++) result[y * width + x] += weight * wide[row * width + x];
    return result;
  }

  function drawHeat(canvas, values, shape, size) {
    [canvas.height, canvas.width] = size;
    const context = canvas.getContext("2d");
    if (!values) return;
    const heat = enlarged(normalized(values), shape, size);
    const picture = context.createImageData(size[1], size[0]);
    heat.forEach((value, index) => {
      const level = Math.round(255 * clamp(value, 0, 1));
      for (let channel = 0; channel < 3; channel++) picture.data[4 * index + channel] = colours[3 * level + channel];
      picture.data[4 * index + 3] = level; // the canvas has the opacity
    });
    context.putImageData(picture, 0, 0);
  }

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
        drawHeat(canvas, values, shape, example.size);
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
    for (const name of ["activations", "low", "step", "mean_gradient", "evidence"]) found[name] = unpack(packed[name]);
    found.places = new Map(Array.from(found.index, (unit, place) => [unit, place]));
    found.densities = packed.densities && {
      points: packed.densities.curves.shape[1],
      curves: unpack(packed.densities.curves),
      modes: packed.densities.modes,
      range: packed.densities.activation_range,
      rows: new Map(Array.from(unpack(packed.densities.index), (unit, row) => [unit, row])),
    };
    return found;
  }

  const positions = () => example.layer[0] * example.layer[1];
  const activation = (place, position) => units.low[place] + units.step[place] * units.activations[place * positions() + position];
  const currentMap = () => example.maps[state.map];

  function weightsOf(map) {
    if (!map || !map.units) return null;
    const weights = map.weights && unpack(map.weights);
    return new Map(Array.from(unpack(map.units), (unit, place) => [unit, weights ? weights[place] : 1]));
  }

  function rank() {
    if (!units) return [];
    const members = weightsOf(currentMap());
    const position = state.position && state.position[0] * example.layer[1] + state.position[1];
    const values = Array.from(units.index, (_, place) => position === null
      ? units.evidence[place] : Math.max(units.mean_gradient[place] * activation(place, position), 0));
    const total = position === null ? 1 : values.reduce((sum, value) => sum + value, 0);
    return values
      .map((value, place) => ({ place, share: total > 0 ? value / total : 0, member: !members || members.has(units.index[place]) }))
      .filter(({ share, member }) => share > 0 && (member || !byId("only").checked))
      .sort((a, b) => b.share - a.share);
  }

  function showRanking() {
    byId("place").textContent = placeText();
    byId("whole").hidden = !state.position;
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
    byId("more").hidden = ranked.length <= state.listed;
  }

  function showUnit(unit) {
    state.unit = unit;
    const place = units.places.get(unit);
    const values = Array.from({ length: positions() }, (_, position) => activation(place, position) - units.low[place]);
    byId("density-title").textContent = `Unit ${unit} of ${units.count}: density of its activations`;
    byId("unit").value = unit;
    byId("unit").setCustomValidity("");
    stages.unit.show(values, example.layer, `activation of unit ${unit}`);
    const weight = weightsOf(currentMap())?.get(unit) ?? (currentMap()?.units ? 0 : 1);
    const facts = [
      ["Relevance", units.relevance ? units.relevance[place] : null],
      ["Share of the evidence", percent(units.evidence[place])],
      ["Activation", `${number(units.low[place])} to ${number(units.low[place] + LEVELS * units.step[place])}`],
      ["Mean gradient", number(units.mean_gradient[place])],
      ["In the map", weight === 0 ? "no" : weight === 1 ? "yes" : `with weight ${number(weight)}`],
    ];
    byId("facts").replaceChildren(...facts.filter(([, value]) => value !== null).map(([name, value]) => {
      const pair = element("div");
      pair.append(element("dt", name), element("dd", value));
      return pair;
    }));
    showDensity(unit, place);
    showRanking();
  }

  function showDensity(unit, place) {
    const { densities } = units, row = densities?.rows.get(unit);
    const svg = byId("density");
    svg.replaceChildren();
    svg.toggleAttribute("hidden", row === undefined);
    if (row === undefined) {
      byId("density-note").textContent = 
        `Not in this page: densities at this layer take long, so it has those of the ${densities?.rows.size ?? 0} units with the most evidence.`;
      return;
    }
    const shape = (name, attributes, text) => {
      const node = document.createElementNS(SVG, name);
      for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
      if (text !== undefined) node.textContent = text;
      svg.append(node);
    };
    const x = (value) => 12 + 396 * value, y = (value) => 106 - 96 * value;
    const curve = densities.curves.subarray(row * densities.points, (row + 1) * densities.points);
    const isMinmax = densities.range === "minmax";
    shape("line", { class: "axis", x1: x(0), x2: x(1), y1: 120, y2: 120 });
    for (const value of [0, 0.5, 1]) shape("text", { x: x(value), y: 133, "text-anchor": "middle" }, value);
    shape("text", { x: x(0.5), y: 147, "text-anchor": "middle" }, isMinmax ? "activation, stretched to [0, 1]" : "activation");
    let inside = 0;
    for (let position = 0; position < positions(); position++) {
      const level = units.activations[place * positions() + position];
      const value = isMinmax ? level / LEVELS : units.low[place] + units.step[place] * level;
      const rounding = isMinmax ? 0 : units.step[place] / 2;
      if (value < -rounding || value > 1 + rounding) continue;
      inside++;
      shape("line", { class: "sample", x1: x(value), x2: x(value), y1: 111, y2: 119 });
    }
    if (!curve.some((value) => value > 0)) {
      byId("density-note").textContent = `No density: it is not defined for so few different activations in [0, 1], ${inside} of ${positions()}.`;
      return;
    }
    const points = Array.from(curve, (value, point) => `${x(point / (densities.points - 1)).toFixed(1)},${y(value / 255).toFixed(1)}`);
    shape("polyline", { class: "curve", points: points.join(" ") });
    const modes = densities.modes[row];
    for (const [value, height] of modes) shape("circle", { class: "mode", cx: x(value), cy: y(height), r: 4.5 });
    const where = modes.map(([value]) => value.toFixed(2)).join(", ");
    const text = modes.length ? `${modes.length} mode${modes.length > 1 ? "s" : ""} at ${where}.` : "No mode inside the range.";
    byId("density-note").textContent = `${text} A tick is an activation: ${inside} of ${positions()} are in [0, 1].`;
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
    for (const row of document.querySelectorAll("table tr"))
      Array.from(row.children).forEach((cell, column) => cell.classList.toggle("current", column === index + 1));
    const head = byId("metrics-head").children[index + 1], label = byId("metrics-head").children[0];
    const frame = document.querySelector(".scroll"), start = head.offsetLeft - frame.scrollLeft;
    if (start < label.offsetWidth || start + head.offsetWidth > frame.clientWidth)
      frame.scrollLeft = head.offsetLeft - label.offsetWidth;
    document.querySelectorAll("thead button").forEach((button, place) => button.setAttribute("aria-pressed", place === index));
    if (units && state.unit !== null) showUnit(state.unit);
    else showRanking();
  }

  const stepMap = (step) => showMap((state.map + step + example.maps.length) % example.maps.length);

  function showComparison(index) {
    state.comparison = index;
    const map = example.comparisons[index];
    byId("comparison").value = index;
    byId("comparison-note").textContent = map ? note(map) : "Without heat";
    if (map) stages.comparison.show(unpack(map.values), map.values.shape, map.name);
    else stages.comparison.show(null, null, "the image without heat");
  }

  const cellText = (value) => value === null || value === undefined ? "–"
    : typeof value === "boolean" ? (value ? "yes" : "no") : value.toFixed(3);

  function showTable() {
    // A map alone has nothing to show in the table.
    const all = [...example.maps, ...example.comparisons.filter((map) => map.n_units !== null)];
    const heads = all.map((map, index) => {
      const head = element("th");
      head.scope = "col";
      if (index < example.maps.length) {
        const button = element("button", map.name);
        button.type = "button";
        button.addEventListener("click", () => showMap(index));
        head.append(button);
      } else head.textContent = map.name;
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
    byId("metrics").replaceChildren(line("units", all.map((map) => map.n_units ?? "–")), ...rows);
  }

  function fill(select, texts) {
    select.replaceChildren(...texts.map((text, index) => {
      const option = element("option", text);
      option.value = index;
      return option;
    }));
  }

  function showExample(index) {
    state.example = index;
    example = data.examples[index];
    units = unpackUnits(example.units);
    Object.assign(state, { position: null, held: false, listed: PER_PAGE, unit: null });
    byId("headline").textContent = example.class ?? example.name ?? "ADVISE explanation";
    const confidence = example.confidence === null ? null : `confidence ${percent(example.confidence)}`;
    byId("summary").textContent = ["ADVISE explanation", example.name, confidence, example.selection].filter(Boolean).join(" · ");
    fill(byId("map"), example.maps.map(describe));
    fill(byId("comparison"), [...example.comparisons.map((map) => map.name), "Image"]);
    showTable();
    for (const id of ["previous-map", "next-map"]) byId(id).hidden = example.maps.length < 2;
    for (const id of ["ranking-card", "unit-card", "density-card", "hint"]) byId(id).hidden = !units;
    document.querySelector(".table-card").classList.toggle("whole", !units);
    document.querySelector("main").classList.toggle("maps-only", !units);
    showComparison(Math.min(state.comparison, example.comparisons.length));
    showMap(Math.max(example.maps.findIndex((map) => map.selected), 0));
    if (!units) return;
    byId("unit").max = units.count - 1;
    const best = ranked.find(({ member }) => member) ?? ranked[0];
    showUnit(best ? units.index[best.place] : units.index[0]);
  }

  // --- controls

  byId("example-control").hidden = data.examples.length < 2;
  fill(byId("example"), data.examples.map(({ name, class: label }, index) => [`${index + 1}`, name, label].filter(Boolean).join(" · ")));
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
  byId("only").addEventListener("change", showRanking);
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
  // A browser may restore the slider of an earlier visit.
  byId("opacity").value = 65;
  showExample(0);
})();
