/** The box that sequences are pasted, dropped or opened into. */

import { byId } from "./dom.js";
import { EXAMPLE } from "./example.js";
import { readFile } from "./fasta.js";

// Characters that a browser edits without being slow.
const EDITABLE = 200_000;
const SHOWN = 3_000;

/** The text of the box; long text is kept beside it, and its beginning is shown. */
export class QueryBox {
  /**
   * @param {function(): void} onChange
   * @param {function(Error): void} onFault Called with a file that cannot be read.
   * @param {function(string): void} onRead Called with the name of a file that was read.
   */
  constructor(onChange, onFault, onRead) {
    this.field = byId("fasta");
    this.held = null;
    this.onChange = onChange;
    this.onFault = onFault;
    this.onRead = onRead;
    this.field.addEventListener("input", onChange);
    this.field.addEventListener("paste", (event) => {
      const pasted = event.clipboardData?.getData("text") ?? "";
      if (pasted.length <= EDITABLE) return;
      event.preventDefault();
      const { value, selectionStart, selectionEnd } = this.field;
      this.text = value.slice(0, selectionStart) + pasted + value.slice(selectionEnd);
    });
    byId("example").addEventListener("click", () => {
      this.text = EXAMPLE;
      byId("go").focus();
    });
    byId("clear").addEventListener("click", () => {
      this.text = "";
      this.field.focus();
    });
    byId("choose").addEventListener("click", () => byId("file").click());
    byId("file").addEventListener("change", async () => {
      await this.open(byId("file").files[0]);
      byId("file").value = "";
    });
    this.listenToDrops();
  }

  get text() {
    return this.held ?? this.field.value;
  }

  set text(text) {
    const long = text.length > EDITABLE;
    this.held = long ? text : null;
    this.field.readOnly = long;
    this.field.value = long
      ? `${text.slice(0, SHOWN)}\n… and so on: all of it is searched. It is too long to be edited here.`
      : text;
    this.field.scrollTop = 0;
    this.onChange();
  }

  async open(file) {
    if (!file) return;
    try {
      this.text = await readFile(file);
    } catch (error) {
      this.onFault(
        Object.assign(new Error(`${file.name} cannot be read: ${error.message}`), { status: 422 }),
      );
      return;
    }
    this.onRead(file.name);
    this.field.focus();
  }

  listenToDrops() {
    const box = byId("drop");
    const carries = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
    // A file that misses the box must not take the page away.
    addEventListener("dragover", (event) => {
      if (!carries(event)) return;
      event.preventDefault();
      box.classList.add("dropping");
    });
    addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) box.classList.remove("dropping");
    });
    addEventListener("drop", (event) => {
      box.classList.remove("dropping");
      if (!carries(event)) return;
      event.preventDefault();
      this.open(event.dataTransfer.files[0]);
    });
  }
}
