//! Models in the cache of the Hugging Face hub, which `hf download`, transformers and llama.cpp fill; armlet only reads it.

use std::path::{Path, PathBuf};

use crate::error::Failure;

/// What is taken where no quantisation is asked for, the first that is there, as in llama.cpp; else any file.
const DEFAULTS: [&str; 2] = ["Q4_K_M", "Q8_0"];

/// Parts of the names of files that are no models: encoders of images, importance matrices, drafts.
const NO_MODELS: [&str; 6] = ["mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-"];

/// A repository of the hub, and a quantisation: `owner/repo[:QUANT]`.
#[derive(Debug, PartialEq)]
pub(crate) struct Wanted<'a> {
    repo: &'a str,
    quant: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    /// `None` where a text is no such name: that of a file, for example.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (repo, quant) = text.split_once(':').map_or((text, None), |(repo, quant)| (repo, Some(quant)));
        let (owner, name) = repo.split_once('/')?;
        let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let is_name = |name: &str| name.split(['.', '-']).all(is_word);
        let is_repo = is_name(owner) && is_name(name) && !name.to_ascii_lowercase().ends_with(".gguf");
        (is_repo && quant.is_none_or(is_name)).then_some(Self { repo, quant })
    }

    /// The file of the model in the cache.
    pub(crate) fn find(&self) -> Result<PathBuf, Failure> {
        self.find_in(&cache().ok_or_else(|| {
            let why = "no such file, and no Hugging Face cache to look into: set HF_HUB_CACHE or HOME";
            Failure::Error(format!("{}: {why}", self.repo))
        })?)
    }

    fn find_in(&self, cache: &Path) -> Result<PathBuf, Failure> {
        let Self { repo, quant } = self;
        let folder = cache.join(format!("models--{}", repo.replace('/', "--")));
        let pattern = quant.unwrap_or(DEFAULTS[0]);
        // Upper case, as most files have it: the pattern is matched as it is.
        let get = format!("hf download {repo} --include '*{}*.gguf' gets it", pattern.to_ascii_uppercase());
        let fail = |why: String| Failure::Error(format!("{repo}: {why}; {get}"));
        let snapshot = revision(&folder).map(|revision| folder.join("snapshots").join(revision));
        let Some(snapshot) = snapshot.filter(|snapshot| snapshot.is_dir()) else {
            return Err(fail(format!("no such file, nor a model of the Hugging Face cache, {}", folder.display())));
        };
        let mut files = Vec::new();
        models(&snapshot, "", &mut files);
        files.sort();
        let wanted = quant.as_ref().map_or(&DEFAULTS[..], std::slice::from_ref);
        let first = || files.first().filter(|_| quant.is_none());
        let file = wanted.iter().find_map(|quant| files.iter().find(|file| is_of(file, quant))).or_else(first);
        match file {
            Some(file) => Ok(snapshot.join(file)),
            None if files.is_empty() => Err(fail(format!("no GGUF file in {}", snapshot.display()))),
            None => Err(fail(format!("no {pattern} in {}, but {}", snapshot.display(), files.join(", ")))),
        }
    }
}

/// The cache's folder, as llama.cpp and huggingface_hub find it.
fn cache() -> Option<PathBuf> {
    let var = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    var("LLAMA_CACHE")
        .or_else(|| var("HF_HUB_CACHE"))
        .or_else(|| var("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| var("HF_HOME").map(|home| home.join("hub")))
        .or_else(|| var("XDG_CACHE_HOME").map(|cache| cache.join("huggingface/hub")))
        .or_else(|| var("HOME").map(|home| home.join(".cache/huggingface/hub")))
}

/// The commit that was downloaded: that of `main`, else of the first other branch.
fn revision(folder: &Path) -> Option<String> {
    let refs = folder.join("refs");
    let mut branches: Vec<_> = std::fs::read_dir(&refs).ok()?.flatten().map(|entry| entry.path()).collect();
    branches.sort_by_key(|path| (path.file_name().is_none_or(|name| name != "main"), path.clone()));
    // It becomes part of a path, so it must be what it should.
    let is_commit = |text: &str| text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let read = |path: &PathBuf| std::fs::read_to_string(path).ok().map(|text| text.trim_end().to_owned());
    branches.iter().filter_map(read).find(|text| is_commit(text))
}

/// Collects the models in a folder and those within it, by their names from the snapshot's folder on; of a model in several
/// files, the first.
fn models(folder: &Path, prefix: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = format!("{prefix}{name}");
        // Files are links to blobs; folders are none.
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => models(&entry.path(), &format!("{path}/"), found),
            // No link whose blob is gone.
            _ if is_model(&name) && entry.path().is_file() => found.push(path),
            _ => {}
        }
    }
}

fn is_model(name: &str) -> bool {
    let is_later_part = || {
        let parts = name.strip_suffix(".gguf").and_then(|stem| stem.rsplit_once("-of-"));
        let number = parts.and_then(|(stem, _)| stem.rsplit_once('-')).map(|(_, number)| number);
        number.is_some_and(|n| n.len() == 5 && n.bytes().all(|b| b.is_ascii_digit()) && n != "00001")
    };
    name.ends_with(".gguf") && !NO_MODELS.iter().any(|part| name.contains(part)) && !is_later_part()
}

/// Whether a file's name says that it is of a quantisation, in letters of any case.
fn is_of(file: &str, quant: &str) -> bool {
    let (file, quant) = (file.to_ascii_uppercase(), quant.to_ascii_uppercase());
    // F16 is no end of BF16, and Q4_K no beginning of Q4_K_M.
    let is_word = |(at, found): (usize, &str)| {
        let (before, after) = (file[..at].chars().next_back(), file[at + found.len()..].chars().next());
        !before.is_some_and(char::is_alphanumeric) && matches!(after, Some('.' | '-'))
    };
    file.match_indices(&quant).any(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_repositories_are_told_from_paths() {
        let wanted = |repo, quant| Some(Wanted { repo, quant });
        assert_eq!(Wanted::parse("owner/Repo-1.5B_x-GGUF"), wanted("owner/Repo-1.5B_x-GGUF", None));
        assert_eq!(Wanted::parse("o/r:q4_k_m"), wanted("o/r", Some("q4_k_m")));
        for path in [
            "", "/", "repo", "/o/r", "./r", "../r", "o/..", "~/r", "a/b/c", "o/r.gguf", "o/R.GGUF", "o/r:", "o/r:a/b",
            "o//r", "o/.r", "o/r:x:y", "o/--r", "o/r ", "-o/r",
        ] {
            assert_eq!(Wanted::parse(path), None, "{path}");
        }
    }

    #[test]
    fn a_revision_is_a_commit_and_no_path() {
        let repo = tempfile::tempdir().unwrap();
        std::fs::create_dir(repo.path().join("refs")).unwrap();
        for (text, found) in
            [("../../x", None), ("", None), (&"g".repeat(40), None), (&"a".repeat(40), Some("a".repeat(40)))]
        {
            std::fs::write(repo.path().join("refs/main"), text).unwrap();
            assert_eq!(revision(repo.path()), found, "{text}");
        }
    }

    /// What a name finds in a cache with these files of one repository.
    fn found(files: &[&str], name: &str) -> Result<String, String> {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let cache = tempfile::tempdir().unwrap();
        let repo = cache.path().join("models--o--r");
        std::fs::create_dir_all(repo.join("refs")).unwrap();
        std::fs::write(repo.join("refs/main"), commit).unwrap();
        std::fs::write(repo.join("refs/a"), "f".repeat(40)).unwrap();
        let snapshot = repo.join("snapshots").join(commit);
        std::fs::create_dir_all(&snapshot).unwrap();
        for file in files {
            let path = snapshot.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        match Wanted::parse(name).unwrap().find_in(cache.path()) {
            Ok(path) => Ok(path.strip_prefix(&snapshot).unwrap().to_str().unwrap().into()),
            Err(Failure::Error(why)) => Err(why),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_file_is_that_which_llama_cpp_takes() {
        let all = ["m-F16.gguf", "m-Q4_K_M.gguf", "m-Q8_0.gguf", "mmproj-m-Q4_K_M.gguf", "README.md"];
        assert_eq!(found(&all, "o/r").unwrap(), "m-Q4_K_M.gguf");
        assert_eq!(found(&all, "o/r:q8_0").unwrap(), "m-Q8_0.gguf");
        assert_eq!(found(&["m-F16.gguf", "m.q8_0.gguf"], "o/r").unwrap(), "m.q8_0.gguf");
        assert_eq!(found(&["m-F32.gguf", "m-F16.gguf"], "o/r").unwrap(), "m-F16.gguf");
        let parts = ["Q4_K_M/m-00002-of-00002.gguf", "Q4_K_M/m-Q4_K_M-00001-of-00002.gguf", "m-Q2_K.gguf"];
        assert_eq!(found(&parts, "o/r").unwrap(), "Q4_K_M/m-Q4_K_M-00001-of-00002.gguf");
        let ends = ["m-BF16.gguf", "m-F16.gguf", "m-IQ4_NL.gguf", "m-TQ1_0.gguf"];
        assert_eq!(found(&ends, "o/r:F16").unwrap(), "m-F16.gguf");
        assert!(found(&ends, "o/r:Q1_0").is_err() && found(&ends, "o/r:Q4_NL").is_err());
        // Q4_K is no beginning of Q4_K_M.
        let why = found(&all, "o/r:Q4_K").unwrap_err();
        assert!(why.contains("no Q4_K in ") && why.contains("m-F16.gguf, m-Q4_K_M.gguf, m-Q8_0.gguf"), "{why}");
        let why = found(&["mmproj.gguf"], "o/r").unwrap_err();
        assert!(why.contains("no GGUF file in ") && why.contains("hf download o/r --include '*Q4_K_M*.gguf'"), "{why}");
        let why = found(&all, "o/other").unwrap_err();
        assert!(why.contains("models--o--other") && why.contains("hf download o/other"), "{why}");
    }
}
