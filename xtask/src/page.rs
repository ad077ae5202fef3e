//! `cargo xtask page`: the page of `armlet serve` in Chromium, with the real model.

use std::process::Command;

use crate::clients::Server;
use crate::process::{Failed, Steps, command, output, root, say};
use crate::setup;

/// # Errors
/// What could not be installed, or what the page did not do.
pub(crate) fn run(steps: &mut Steps) -> Result<(), Failed> {
    setup::program(steps)?;
    check(steps)
}

/// The same, where the program is built. Pictures go to `target/page`.
pub(crate) fn check(steps: &mut Steps) -> Result<(), Failed> {
    let folder = root().join("target/page");
    let to = folder.display().to_string();
    steps.step("Chromium and what drives it", || {
        setup::packages(&[(&["chromium", "--version"], "chromium"), (&["npm", "--version"], "npm")])?;
        if folder.join("node_modules/playwright-core").exists() {
            return Ok(());
        }
        command("npm", &["install", "--silent", "--no-fund", "--no-audit", "--prefix", &to, "playwright-core"], &[])
    })?;
    let server = Server::start("smollm2", None)?;
    steps.step("the page in Chromium", || {
        // Node looks for packages beside the script.
        let script = folder.join("page.mjs");
        std::fs::copy(root().join("tests/page/page.mjs"), &script).map_err(|e| Failed(e.to_string()))?;
        let url = format!("http://{}/", server.address);
        output(Command::new("node").arg(script).args([&url, &to])).map(say)
    })
}
