// Masks in a browser: COCO's compressed run lengths to canvases that can be laid over a picture.
// A mask is {size: [height, width], counts: "..."}; runs go down the columns, outside and inside in turn.

function runLengths(counts) {
  const runs = [];
  for (let at = 0; at < counts.length; ) {
    let value = 0;
    let shift = 0;
    let five; // bits of the number, and a sixth that says whether more follow
    do {
      five = counts.charCodeAt(at++) - 48;
      value |= (five & 31) << shift;
      shift += 5;
    } while (five & 32);
    if (five & 16) value |= -1 << shift; // the sign reaches up
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value); // all but the first are differences
  }
  return runs;
}

function inside(mask) {
  const [height, width] = mask.size;
  const pixels = new Uint8Array(height * width); // down the columns
  let at = 0;
  runLengths(mask.counts).forEach((length, turn) => {
    if (turn % 2) pixels.fill(1, at, at + length);
    at += length;
  });
  return pixels;
}

function blank(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}

// The mask's inside in one colour ([r, g, b]) on a canvas of this size, with a smooth border where that is larger.
function painted(mask, color, width, height) {
  const [tall, wide] = mask.size;
  if (width > wide) return enlarged(painted(mask, color, wide, tall), width, height);
  const pixels = inside(mask);
  const drawn = new ImageData(width, height);
  const words = new Uint32Array(drawn.data.buffer); // a pixel each: quicker than four bytes
  const word = new Uint32Array(new Uint8Array([...color, 255]).buffer)[0];
  for (let x = 0; x < width; x++) {
    const column = Math.floor(((x + 0.5) * wide) / width) * tall;
    for (let y = 0; y < height; y++) {
      if (pixels[column + Math.floor(((y + 0.5) * tall) / height)]) words[y * width + x] = word;
    }
  }
  const canvas = blank(width, height);
  canvas.getContext("2d").putImageData(drawn, 0, 0);
  return canvas;
}

function enlarged(small, width, height) {
  const canvas = blank(width, height);
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.imageSmoothingQuality = "high";
  pen.drawImage(small, 0, 0, width, height);
  const drawn = pen.getImageData(0, 0, width, height);
  for (let at = 3; at < drawn.data.length; at += 4) drawn.data[at] = 4 * drawn.data[at] - 384; // clamped: a sharp edge
  pen.putImageData(drawn, 0, 0);
  return canvas;
}

// What lies over a picture for one mask: its inside, and its outline with a light rim, as `cores predict` draws it.
function layer(mask, color, width, height) {
  const fill = painted(mask, color, width, height);
  const step = Math.max(1, Math.round(Math.max(width, height) / 200));
  const around = [-1, 0, 1].flatMap((x) => [-1, 0, 1].map((y) => [x * step, y * step]));

  const rim = blank(width, height);
  const outer = rim.getContext("2d");
  for (const [x, y] of around) outer.drawImage(fill, x, y);
  outer.globalCompositeOperation = "source-in";
  outer.fillStyle = "white";
  outer.fillRect(0, 0, width, height);
  outer.globalCompositeOperation = "destination-out";
  outer.drawImage(fill, 0, 0);

  const core = blank(width, height); // what is left inside of the outline
  const inner = core.getContext("2d");
  inner.drawImage(fill, 0, 0);
  inner.globalCompositeOperation = "destination-in";
  for (const [x, y] of around) inner.drawImage(fill, x, y);

  const line = blank(width, height);
  const pen = line.getContext("2d");
  pen.drawImage(fill, 0, 0);
  pen.globalCompositeOperation = "destination-out";
  pen.drawImage(core, 0, 0);
  pen.globalCompositeOperation = "source-over";
  pen.drawImage(rim, 0, 0);
  return { fill, line };
}

// The picture with layers over it, which are taken one at a time. `strength`: a layer's share of the opacity, less for
// earlier levels of a chain.
function compose(canvas, picture, layers, opacity) {
  const pen = canvas.getContext("2d");
  pen.globalAlpha = 1;
  pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  for (const { fill, line, strength } of layers) {
    pen.globalAlpha = opacity * strength;
    pen.drawImage(fill, 0, 0);
    pen.globalAlpha = strength;
    pen.drawImage(line, 0, 0);
  }
  pen.globalAlpha = 1;
}
