// A picture of a file: the browser's own for JPEG and PNG, and for uncompressed TIFF (Kaggle's) drawn here.

import { make } from "./dom.js";

const LARGEST_PX = 1024;

export async function previewOf(file) {
  try {
    const bitmap = /\.tiff?$/i.test(file.name) ? await tiff(file) : await createImageBitmap(file);
    return bitmap;
  } catch {
    return null;
  }
}

export function draw(bitmap, className) {
  if (!bitmap) return null;
  const canvas = make("canvas", { class: className, width: bitmap.width, height: bitmap.height, "aria-hidden": "true" });
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  return canvas;
}

async function tiff(file) {
  const data = new DataView(await file.arrayBuffer());
  const little = data.getUint16(0) === 0x4949;
  const tags = new Map();
  const directory = data.getUint32(4, little);
  for (let i = 0; i < data.getUint16(directory, little); i += 1) {
    const at = directory + 2 + 12 * i;
    tags.set(data.getUint16(at, little), values(data, at, little));
  }
  const one = (tag, fallback) => tags.get(tag)?.[0] ?? fallback;
  const width = one(256), height = one(257);
  const isPlain = one(259, 1) === 1 && one(277) === 3 && one(284, 1) === 1 && one(258) === 8;
  if (!isPlain || !tags.has(273) || width > LARGEST_PX || height > LARGEST_PX) return null;
  const pixels = new Uint8ClampedArray(4 * width * height);
  let out = 0;
  tags.get(273).forEach((offset, strip) => {
    const bytes = tags.get(279)?.[strip] ?? 3 * width * height;
    for (let i = 0; i + 2 < bytes && out < pixels.length; i += 3, out += 4) {
      for (let c = 0; c < 3; c += 1) pixels[out + c] = data.getUint8(offset + i + c);
      pixels[out + 3] = 255;
    }
  });
  return createImageBitmap(new ImageData(pixels, width, height));
}

function values(data, at, little) {
  const short = data.getUint16(at + 2, little) === 3;
  const count = Math.min(data.getUint32(at + 4, little), 4096);
  const start = count * (short ? 2 : 4) <= 4 ? at + 8 : data.getUint32(at + 8, little);
  return Array.from({ length: count }, (_, i) =>
    short ? data.getUint16(start + 2 * i, little) : data.getUint32(start + 4 * i, little));
}
