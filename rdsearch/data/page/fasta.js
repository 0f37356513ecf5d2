/** Proteins as text: what was pasted, made FASTA; the server checks it. */

/**
 * Records of FASTA text, or of a sequence without a header, which is called query_1.
 * @param {string} text
 * @returns {{id: string, description: string, sequence: string}[]}
 */
export function records(text) {
  const found = [];
  for (const line of text.replace(/^\uFEFF/, "").split(/\r\n|\r|\n/)) {
    if (line.startsWith(">")) {
      const [, id, description] = line.slice(1).match(/^\s*(\S*)\s*(.*)$/);
      found.push({ id, description: description.trim(), sequence: [] });
    } else if (line.trim()) {
      if (!found.length) found.push({ id: "query_1", description: "", sequence: [] });
      found[found.length - 1].sequence.push(line.replace(/\s+/g, ""));
    }
  }
  return found.map((one) => ({ ...one, sequence: one.sequence.join("").toUpperCase() }));
}

/** The text as FASTA: a bare sequence gets a header, and loses digits and spaces that copies of databases have. */
export function asFasta(text) {
  const clean = text.replace(/^\uFEFF/, "").trim();
  if (!clean || clean.startsWith(">")) return clean;
  const bare = /^[A-Za-z*\-\d\s]+$/.test(clean) ? clean.replace(/\d+/g, "") : clean;
  return `>query_1\n${bare.replace(/[^\S\r\n]+/g, "")}`;
}

/** How many proteins and residues FASTA text has. */
export function count(fasta) {
  const all = records(fasta);
  return {
    sequences: all.length,
    residues: all.reduce((sum, one) => sum + one.sequence.length, 0),
  };
}

/**
 * The text of a file, unpacked if it is gzip.
 * @param {Blob} file
 * @returns {Promise<string>}
 */
export async function readFile(file) {
  const magic = new Uint8Array(await file.slice(0, 2).arrayBuffer());
  if (magic[0] !== 0x1f || magic[1] !== 0x8b) return file.text();
  const unpacked = file.stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(unpacked).text();
}
