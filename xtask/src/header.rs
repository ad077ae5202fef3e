//! `include/armlet.h`, from the functions and types of `src/capi`.

use cbindgen::{Builder, Config, DocumentationStyle, ExportConfig, Language, Style};

use crate::process::{Failed, root, version};

const HEADER: &str = "include/armlet.h";
/// In the order in which the header has them.
const SOURCES: [&str; 6] = ["types", "lifecycle", "decode", "generate", "text", "snapshot"];

const INTRODUCTION: &str = "\
/*
 * armlet: language models on ARM, in memory whose size is known before the first token.
 *
 *     armlet_requirements needs = ARMLET_REQUIREMENTS_INIT;
 *     armlet_config config = ARMLET_CONFIG_INIT;
 *     armlet_plan(model, model_len, &config, &needs);           // how much memory
 *     armlet_init(arena, arena_len, model, model_len, &config, &ctx);
 *     armlet_chat_turn(ctx, ARMLET_USER, text, len, ARMLET_OPEN_ANSWER, tokens, cap, &n);
 *     armlet_prefill(ctx, tokens, n);
 *     while (armlet_generate(ctx, NULL, show, NULL, &event) == ARMLET_OK) {}   // `show` prints the text as it comes
 *
 * No function allocates, blocks, prints, or keeps anything outside the arena. None may be called from an interrupt
 * handler. All use floating-point and SIMD registers: without an operating system these must be enabled, and an RTOS must
 * save them for each task that calls armlet. Sizes are in bytes unless stated otherwise. Strings are UTF-8 with a length.
 *
 * Written by `cargo xtask header` from src/capi; do not edit.
 */";

const PANIC: &str = "\
/// Firmware must define this function, and it must not return: without an operating system the library calls it where
/// Rust code would panic. No function of this header is known to panic.
#ifdef __cplusplus
extern \"C\"
#endif
void armlet_panic(void);";

/// With a value for each member, which is what both C and C++11 take without a warning.
const INITIALISERS: &str = "\
/// A configuration of defaults, and structs for a function to fill.
#define ARMLET_CONFIG_INIT \\
    {sizeof(armlet_config), ARMLET_ABI_VERSION, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, NULL, NULL, {0, 0, 0, 0}}
#define ARMLET_REQUIREMENTS_INIT {sizeof(armlet_requirements), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
#define ARMLET_SAMPLING_INIT {sizeof(armlet_sampling), 0, 0, 0, 0, 0, 0, 0, 0}
#define ARMLET_ANSWER_INIT {sizeof(armlet_answer), 0, NULL, NULL, 0, 0, 0, 0}
#define ARMLET_EVENT_INIT {sizeof(armlet_event), 0, 0, 0, 0, 0}
#define ARMLET_INFO_INIT {sizeof(armlet_info), 0, 0, 0, 0, 0, 0, 0, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}}";

pub(crate) fn write() -> Result<(), Failed> {
    let path = root().join(HEADER);
    std::fs::write(&path, text()?).map_err(|e| Failed(format!("{}: {e}", path.display())))
}

pub(crate) fn check() -> Result<(), Failed> {
    let now = std::fs::read_to_string(root().join(HEADER)).unwrap_or_default();
    if now == text()? {
        return Ok(());
    }
    Err(Failed(format!("{HEADER} is not what src/capi says: run `cargo xtask header`")))
}

fn text() -> Result<String, Failed> {
    let [major, minor, patch] = version()?;
    let config = Config {
        language: Language::C,
        header: Some(INTRODUCTION.into()),
        include_guard: Some("ARMLET_H".into()),
        after_includes: Some(format!(
            "\n#define ARMLET_VERSION_MAJOR {major}\n#define ARMLET_VERSION_MINOR {minor}\n#define ARMLET_VERSION_PATCH {patch}\n\n\
             {INITIALISERS}\n\n{PANIC}"
        )),
        cpp_compat: true,
        no_includes: true,
        sys_includes: ["stdbool.h", "stddef.h", "stdint.h"].map(String::from).to_vec(),
        style: Style::Type,
        usize_is_size_t: true,
        documentation_style: DocumentationStyle::Cxx,
        export: ExportConfig {
            include: ["pattern", "kv_type", "backend", "role", "event_kind"]
                .map(|name| format!("armlet_{name}"))
                .to_vec(),
            ..ExportConfig::default()
        },
        line_length: 120,
        tab_width: 4,
        ..Config::default()
    };
    let builder = SOURCES.iter().fold(Builder::new().with_config(config), |builder, source| {
        builder.with_src(root().join("src/capi").join(source).with_extension("rs"))
    });
    let bindings = builder.generate().map_err(|e| Failed(format!("cbindgen: {e}")))?;
    let mut bytes = Vec::new();
    bindings.write(&mut bytes);
    let text = String::from_utf8(bytes).map_err(|e| Failed(e.to_string()))?;
    Ok(without_safety(&text))
}

/// A C header needs no section on what every C function expects.
fn without_safety(text: &str) -> String {
    let mut out = String::new();
    let mut skipping = false;
    for line in text.lines() {
        let comment = line.trim_start().starts_with("///");
        skipping = comment && (skipping || line.contains("# Safety"));
        if skipping {
            // The empty line before it too.
            if out.ends_with("\n///\n") {
                out.truncate(out.len() - 4);
            }
            continue;
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}
