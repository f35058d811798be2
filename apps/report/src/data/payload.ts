// What the report holds: base64 of deflate (zlib) of a safetensors file, in the page itself.

export type Tensor =
  | { dtype: "U8"; shape: number[]; data: Uint8Array }
  | { dtype: "F32"; shape: number[]; data: Float32Array };

export interface Payload {
  metadata: Record<string, string>;
  tensors: Map<string, Tensor>;
}

export class PayloadError extends Error {}

export function fromBase64(text: string): Uint8Array {
  let binary: string;
  try {
    binary = atob(text);
  } catch {
    throw new PayloadError("The data in this file is no base64; the file was damaged, make the report again.");
  }
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; ++i) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

export async function inflate(bytes: Uint8Array): Promise<Uint8Array> {
  try {
    return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer());
  } catch {
    throw new PayloadError("The data in this file cannot be decompressed; the file was damaged, make the report again.");
  }
}

// 8 bytes of header length (little endian), a JSON header, raw data. Tensors are views of `bytes` where their place allows.
export function safetensors(bytes: Uint8Array): Payload {
  const damaged = (what: string) => new PayloadError(`The data in this file ${what}; make the report again.`);
  if (bytes.byteLength < 8) throw damaged("has no header");
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  if (length > bytes.byteLength - 8) throw damaged("ends within its header");
  let header: Record<string, unknown>;
  try {
    header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length))) as Record<string, unknown>;
  } catch {
    throw damaged("has a header that is no JSON");
  }
  const payload: Payload = { metadata: (header["__metadata__"] ?? {}) as Record<string, string>, tensors: new Map() };
  for (const [name, value] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const { dtype, shape, data_offsets } = value as { dtype: string; shape: number[]; data_offsets: [number, number] };
    const [begin, end] = [8 + length + data_offsets[0], 8 + length + data_offsets[1]];
    const n = shape.reduce((product, x) => product * x, 1);
    const size = dtype === "U8" ? 1 : dtype === "F32" ? 4 : 0;
    if (size === 0) throw damaged(`has '${name}' as ${dtype}, U8 or F32 was expected`);
    if (end > bytes.byteLength || end - begin !== n * size) throw damaged(`has '${name}' in ${end - begin} bytes, ${n * size} were expected`);
    const data = bytes.subarray(begin, end);
    payload.tensors.set(name, dtype === "U8" ? { dtype, shape, data } : { dtype: "F32", shape, data: new Float32Array(data.slice().buffer) });
  }
  return payload;
}
