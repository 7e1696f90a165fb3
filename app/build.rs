//! Hands the window's configuration to Tauri, and makes sure there are pages to build in.

use std::path::Path;

const PLACEHOLDER: &str = "<!doctype html><meta charset=utf-8><title>Ropewalk</title>\
<p>This window was built without its pages. Run: npm --prefix ui ci; npm --prefix ui run build; and build again.</p>\n";

fn main() {
    let pages = Path::new("../ui/dist");
    println!("cargo:rerun-if-changed=../ui/dist/index.html");
    if !pages.join("index.html").exists() {
        println!(
            "cargo:warning=ui/dist is missing, the window will be empty: run `npm --prefix ui ci && npm --prefix ui run build` first"
        );
        let written = std::fs::create_dir_all(pages)
            .and_then(|()| std::fs::write(pages.join("index.html"), PLACEHOLDER));
        if let Err(error) = written {
            println!("cargo:warning=cannot write a placeholder to ui/dist: {error}");
        }
    }
    tauri_build::build();
}
