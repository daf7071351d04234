// CRC-32 as in zip and PNG files, eight bytes at a time: a large image is checked in a fraction of a second.

const TABLES = Array.from({ length: 8 }, () => new Uint32Array(256));
for (let value = 0; value < 256; value++) {
  let check = value;
  for (let bit = 0; bit < 8; bit++) check = check & 1 ? (check >>> 1) ^ 0xedb88320 : check >>> 1;
  TABLES[0][value] = check;
}
for (let table = 1; table < 8; table++) {
  for (let value = 0; value < 256; value++) {
    const before = TABLES[table - 1][value];
    TABLES[table][value] = (before >>> 8) ^ TABLES[0][before & 255];
  }
}

/** The CRC-32 of a Uint8Array, as an unsigned number. */
export function crc32(bytes) {
  const [t0, t1, t2, t3, t4, t5, t6, t7] = TABLES;
  let check = ~0, at = 0;
  if (bytes.byteOffset % 4 === 0) {
    const words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >>> 2);
    const end = words.length - (words.length % 2);
    for (let place = 0; place < end; place += 2) {
      const one = words[place] ^ check, two = words[place + 1];
      check = t7[one & 255] ^ t6[(one >>> 8) & 255] ^ t5[(one >>> 16) & 255] ^ t4[one >>> 24]
        ^ t3[two & 255] ^ t2[(two >>> 8) & 255] ^ t1[(two >>> 16) & 255] ^ t0[two >>> 24];
    }
    at = end * 4;
  }
  for (; at < bytes.length; at++) check = (check >>> 8) ^ t0[(check ^ bytes[at]) & 255];
  return ~check >>> 0;
}
