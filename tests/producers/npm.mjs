// Print one sale with each receipt library of npm, and keep its bytes in the folder of the first argument.
// Run by capture.py in a folder where the libraries are installed.
import { mkdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const from = createRequire(join(process.cwd(), "producers.cjs"));
const folder = resolve(process.argv[2]);
mkdirSync(folder, { recursive: true });
const load = async (name) => {
  try {
    return from(name);
  } catch (error) {
    if (error.code !== "ERR_REQUIRE_ESM" && error.code !== "ERR_PACKAGE_PATH_NOT_EXPORTED") throw error;
    const info = from(join(process.cwd(), "node_modules", name, "package.json"));
    return import(pathToFileURL(join(process.cwd(), "node_modules", name, info.module || info.main)));
  }
};

const SHOP = "MAMA MBOGA STORES";
const NUMBER = "RECEIPT NO 0001";
const DATE = "25/11/2026 10:15";
const THANKS = "THANK YOU";
const items = (name) => [["SODA 500ML", "120.00 V"], [null, "  2 x 60.00"], [name, "65.00 Z"]];
const totals = [["TOTAL", "185.00"], ["M-PESA", "185.00"]];
const pair = (left, right, columns = 32) => left + right.padStart(columns - left.length);
const lines = (name) => [
  ...items(name).map(([left, right]) => (left === null ? right : pair(left, right))),
  ...totals.map(([left, right]) => pair(left, right)),
];

const producers = {
  async escpos(name) {
    // Not its index, which wants the drivers of USB and serial ports.
    const Printer = await load("escpos/printer");
    const kept = [];
    const device = { write: (data, done) => { kept.push(Buffer.from(data)); done && done(); },
      open: (done) => done && done(), close: (done) => done && done() };
    const printer = new Printer(device, { encoding: "CP437", width: 32 });
    printer.font("a").align("ct").style("bu").size(0, 0).text(SHOP).style("normal").align("lt");
    printer.text(NUMBER).text(DATE).drawLine();
    for (const line of lines(name)) printer.text(line);
    printer.barcode("400781752507", "EAN13", { width: 2, height: 64 }).text(THANKS).cashdraw(2).cut();
    await new Promise((done) => printer.flush(done));
    return Buffer.concat(kept);
  },

  async "node-escpos"(name) {
    const { Printer } = await load("@node-escpos/core");
    const kept = [];
    const device = { write: (data, done) => { kept.push(Buffer.from(data)); done && done(null); },
      open: (done) => done && done(null), close: (done) => done && done(null), on() {}, once() {}, emit() {} };
    const printer = new Printer(device, { encoding: "CP437", width: 32 });
    printer.font("a").align("ct").style("b").size(1, 1).text(SHOP).style("normal").align("lt");
    printer.text(NUMBER).text(DATE).drawLine();
    for (const line of lines(name)) printer.text(line);
    printer.text(THANKS).cashdraw(2).cut();
    await printer.flush();
    return Buffer.concat(kept);
  },

  async "node-thermal-printer"(name) {
    const { ThermalPrinter, PrinterTypes, CharacterSet } = await load("node-thermal-printer");
    const printer = new ThermalPrinter({ type: PrinterTypes.EPSON, width: 32, interface: "tcp://127.0.0.1:9",
      characterSet: CharacterSet.PC858_EURO, removeSpecialCharacters: false });
    printer.alignCenter();
    printer.bold(true);
    printer.println(SHOP);
    printer.bold(false);
    printer.alignLeft();
    printer.println(NUMBER);
    printer.println(DATE);
    printer.drawLine();
    for (const [left, right] of items(name)) {
      if (left === null) printer.println(right);
      else printer.leftRight(left, right);
    }
    for (const [left, right] of totals) printer.leftRight(left, right);
    printer.printQR("0001", { cellSize: 4, correction: "M", model: 2 });
    printer.println(THANKS);
    printer.cut();
    printer.openCashDrawer();
    return printer.getBuffer();
  },

  async receiptline(name) {
    const receiptline = await load("receiptline");
    const rows = [`${SHOP}`, `${NUMBER} |`, `${DATE} |`, "-"];
    for (const [left, right] of items(name)) rows.push(left === null ? `\\ \\ ${right.trim()} |` : `${left} | ${right}`);
    for (const [left, right] of totals) rows.push(`${left} | ${right}`);
    rows.push("{code:0001;option:code128,2,72}", THANKS, "=");
    const data = receiptline.transform(rows.join("\n"), { cpl: 32, encoding: "multilingual", command: "escpos" });
    return Buffer.from(data, "binary");
  },

  async "receipt-printer-encoder"(name) {
    const Encoder = (await load("@point-of-sale/receipt-printer-encoder"));
    const encoder = new (Encoder.default || Encoder)({ columns: 32, language: "esc-pos" });
    encoder.initialize().align("center").bold(true).line(SHOP).bold(false).align("left").line(NUMBER).line(DATE).rule();
    const rows = [...items(name).filter(([left]) => left !== null), ...totals];
    encoder.table([{ width: 20, align: "left" }, { width: 12, align: "right" }], rows.slice(0, 1));
    encoder.line("  2 x 60.00");
    encoder.table([{ width: 20, align: "left" }, { width: 12, align: "right" }], rows.slice(1));
    encoder.qrcode("0001").line(THANKS).pulse().cut();
    return Buffer.from(encoder.encode());
  },

  async "esc-pos-encoder"(name) {
    const Encoder = await load("esc-pos-encoder");
    const encoder = new (Encoder.default || Encoder)();
    encoder.initialize().codepage("windows1252").align("center").bold(true).line(SHOP).bold(false).align("left");
    encoder.line(NUMBER).line(DATE).line("-".repeat(32));
    for (const line of lines(name)) encoder.line(line);
    encoder.barcode("0001", "code128", 60).line(THANKS).pulse().cut();
    return Buffer.from(encoder.encode());
  },

  async "react-thermal-printer"(name) {
    const { Printer, Text, Row, Line, Cut, Cashdraw, render } = await load("react-thermal-printer");
    const { createElement: e } = await load("react");
    return Buffer.from(await render(e(Printer, { type: "epson", width: 32, characterSet: "pc437_usa" },
      e(Text, { align: "center", bold: true }, SHOP), e(Text, null, NUMBER), e(Text, null, DATE), e(Line),
      ...items(name).map(([left, right], key) => left === null ? e(Text, { key }, right) : e(Row, { key, left, right })),
      ...totals.map(([left, right]) => e(Row, { key: left, left, right })),
      e(Text, null, THANKS), e(Cashdraw, { pin: "2pin" }), e(Cut))));
  },

  async "escpos-buffer"(name) {
    const { Printer, InMemory, Style, Align } = await load("escpos-buffer");
    const connection = new InMemory();
    const printer = await Printer.CONNECT("TM-T20", connection);
    await printer.setColumns(48);
    await printer.writeln(SHOP, Style.Bold, Align.Center);
    for (const line of [NUMBER, DATE, "-".repeat(32), ...lines(name)]) await printer.writeln(line);
    await printer.writeln(THANKS);
    await printer.feed(2);
    await printer.drawer();
    await printer.cutter();
    return connection.buffer();
  },

  async "xml-escpos-helper"(name) {
    const { EscPos } = await load("@tillpos/xml-escpos-helper");
    const text = (line) => `<text-line>${line}</text-line>`;
    const body = [NUMBER, DATE, "-".repeat(32), ...lines(name), THANKS].map(text).join("");
    const xml = `<?xml version="1.0" encoding="UTF-8"?><document><align mode="center"><bold><text-line>${SHOP}</text-line></bold></align>` +
      `<align mode="left">${body}</align><line-feed /><paper-cut /></document>`;
    return Buffer.from(EscPos.getBufferFromTemplate(xml, {}));
  },
};

for (const [producer, print] of Object.entries(producers)) {
  for (const [suffix, name] of [["", "BREAD 400G"], ["-accents", "CAFÉ 400G"]]) {
    try {
      writeFileSync(join(folder, `${producer}${suffix}.bin`), await print(name));
    } catch (error) {
      console.error(producer, suffix, error);
      process.exitCode = 1;
    }
  }
}
