// A map as heat on a canvas, as captum_advise.pixels.normalize_maps and upsample_maps make it.
const heat = (() => {
  "use strict";
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

  function draw(canvas, values, shape, size, colours) {
    [canvas.height, canvas.width] = size;
    const context = canvas.getContext("2d");
    if (!values) return;
    const levels = enlarged(normalized(values), shape, size);
    const picture = context.createImageData(size[1], size[0]);
    levels.forEach((value, index) => {
      const level = Math.round(255 * Math.min(Math.max(value, 0), 1));
      for (let channel = 0; channel < 3; channel++) picture.data[4 * index + channel] = colours[3 * level + channel];
      picture.data[4 * index + 3] = level; // the canvas has the opacity
    });
    context.putImageData(picture, 0, 0);
  }

  return { draw };
})();
