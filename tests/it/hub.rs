//! `-m owner/repo[:QUANT]`: files that are already in the cache of the Hugging Face hub.

use std::path::Path;
use std::process::Output;

use crate::cli::{Folder, armlet, fails};
use crate::common::gguf::{Tiny, Val};

/// Puts a model into a cache as `hf download` does: a blob, and a link in the snapshot of a commit.
#[cfg(unix)]
fn put(cache: &Path, file: &str, name: &str) {
    let commit = "89abcdef".repeat(5);
    let repo = cache.join("models--some--Tiny-GGUF");
    let snapshot = repo.join("snapshots").join(&commit);
    for folder in [repo.join("refs"), repo.join("blobs"), snapshot.clone()] {
        std::fs::create_dir_all(folder).unwrap();
    }
    std::fs::write(repo.join("refs/main"), commit).unwrap();
    let model = Tiny::default().gguf().set("general.name", Val::Str(name.into())).build();
    std::fs::write(repo.join("blobs").join(name), model).unwrap();
    std::os::unix::fs::symlink(Path::new("../../blobs").join(name), snapshot.join(file)).unwrap();
}

/// The program with none of the variables that say where the cache is but these.
fn run(args: &[&str], variables: &[(&str, &Path)]) -> Output {
    let mut command = armlet();
    for name in ["LLAMA_CACHE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"] {
        command.env_remove(name);
    }
    command.args(args).envs(variables.iter().copied()).output().unwrap()
}

#[test]
#[cfg(unix)]
fn a_model_is_found_where_the_variables_say() {
    let f = Folder::new();
    let folders = ["llama", "hub", "old", "home/hub", "xdg/huggingface/hub", "user/.cache/huggingface/hub"];
    for (folder, name) in folders.iter().zip(["in llama", "in hub", "in old", "in home", "in xdg", "in user"]) {
        put(&f.path(folder), "tiny-Q8_0.gguf", name);
    }
    put(&f.path("hub"), "tiny-Q4_K_M.gguf", "the default");
    let values = ["llama", "hub", "old", "home", "xdg", "user"].map(|folder| f.path(folder));
    let names = ["LLAMA_CACHE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"];
    let variables: Vec<_> = names.into_iter().zip(&values).map(|(name, path)| (name, path.as_path())).collect();
    for (first, found) in ["in llama", "the default", "in old", "in home", "in xdg", "in user"].into_iter().enumerate()
    {
        let output = run(&["inspect", "some/Tiny-GGUF"], &variables[first..]);
        assert!(String::from_utf8_lossy(&output.stdout).contains(&format!("general.name = \"{found}\"")), "{output:?}");
    }
    let variables = &variables[1..];
    let output = run(&["inspect", "some/Tiny-GGUF:q8_0"], variables);
    assert!(String::from_utf8_lossy(&output.stdout).contains("general.name = \"in hub\""), "{output:?}");
    let output = run(&["complete", "-m", "some/Tiny-GGUF", "-p", "AB", "-n", "1"], variables);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn what_is_not_in_the_cache_is_not_downloaded() {
    let f = Folder::new();
    let cache = f.path("hub");
    let missing = |name: &str, what: &str| {
        fails(&run(&["complete", "-m", name, "-p", "A"], &[("HF_HUB_CACHE", &cache)]), 1, what);
    };
    missing("some/Tiny-GGUF", &cache.join("models--some--Tiny-GGUF").display().to_string());
    missing("some/Tiny-GGUF", "hf download some/Tiny-GGUF --include '*Q4_K_M*.gguf' gets it");
    missing("some/tiny.gguf", "no such file");
    #[cfg(unix)]
    {
        put(&cache, "tiny-F16.gguf", "tiny");
        missing("some/Tiny-GGUF:Q6_K", "no Q6_K in ");
        missing("some/Tiny-GGUF:Q6_K", "hf download some/Tiny-GGUF --include '*Q6_K*.gguf' gets it");
    }
    fails(&run(&["inspect", "some/Tiny-GGUF"], &[]), 1, "set HF_HUB_CACHE or HOME");
}
