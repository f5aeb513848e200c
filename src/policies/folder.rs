//! Finds the files of a folder tree: sorted, bounded, and as Kubernetes mounts them.
//!
//! A ConfigMap is mounted as symbolic links into `..data`, which a change swaps as one: links to files are followed,
//! names that begin with a dot are passed over, links to folders are refused, so that there are no circles.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::Source;
use super::problem::{Problem, Problems};

/// In bytes.
pub const FILE_SIZE_MAX: u64 = 1 << 20;
const FILES_MAX: usize = 10_000;
const TOTAL_SIZE_MAX: usize = 64 << 20;
const FOLDER_DEPTH_MAX: usize = 16;

/// The files of a folder tree, or the one file, sorted by path.
///
/// # Errors
/// What can't be read, beside what can.
pub fn read_sources(path: &Path) -> Result<Vec<Source>, (Vec<Source>, Problems)> {
    let mut search = Search::default();
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => search.folder(path, 0),
        Ok(_) => search.files.push(path.to_owned()),
        Err(error) => search.unreadable(path, &error),
    }
    search.files.sort();
    let mut sources = Vec::new();
    let mut total = 0;
    for file in std::mem::take(&mut search.files) {
        match read_file(&file) {
            Ok(text) => {
                total += text.len();
                sources.push(Source { file: file.display().to_string(), text });
            }
            Err(problem) => search.problems.push(*problem),
        }
        if total > TOTAL_SIZE_MAX {
            search.refuse(path, "too-large", "all files together are larger than 64 MiB", "split them over several installations");
            break;
        }
    }
    if search.problems.is_empty() {
        return Ok(sources);
    }
    let problems = Problems::new(search.problems, &[]);
    Err((sources, problems))
}

/// One file, whole.
///
/// # Errors
/// Its one problem.
pub(crate) fn read_file(file: &Path) -> Result<String, Box<Problem>> {
    let refuse = |code, message: &str, help: &str| Box::new(Problem::of_file(file.display().to_string(), code, message, help));
    let unreadable = |error: std::io::Error| Box::new(cannot_read(file, &error));
    // A pipe would be waited for: asked before it is opened.
    if !fs::metadata(file).map_err(unreadable)?.is_file() {
        return Err(refuse("unreadable", "this is no file", "remove it, or name a file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(file).map_err(unreadable)?.take(FILE_SIZE_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > FILE_SIZE_MAX {
        return Err(refuse("too-large", "the file is larger than 1 MiB", "split it: a folder may hold many files"));
    }
    String::from_utf8(bytes).map_err(|_| refuse("not-utf8", "the file isn't UTF-8", "save it as UTF-8"))
}

fn cannot_read(file: &Path, error: &std::io::Error) -> Problem {
    let (code, help) = match error.kind() {
        std::io::ErrorKind::NotFound => ("not-found", "create it, or name another path"),
        _ => ("unreadable", "look at its owner and mode"),
    };
    // The kind only: the system's own text is not ours to vouch for.
    Problem::of_file(file.display().to_string(), code, format!("can't be read: {}", error.kind()), help)
}

#[derive(Default)]
struct Search {
    files: Vec<PathBuf>,
    problems: Vec<Problem>,
    full: bool,
}

impl Search {
    fn folder(&mut self, path: &Path, depth: usize) {
        if depth > FOLDER_DEPTH_MAX {
            return self.refuse(path, "too-deep", "folders are nested more than 16 deep", "keep the folders flat");
        }
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) => return self.unreadable(path, &error),
        };
        for entry in entries {
            match entry {
                Ok(entry) if entry.file_name().as_encoded_bytes().starts_with(b".") => {}
                Ok(entry) => self.entry(&entry, depth),
                Err(error) => self.unreadable(path, &error),
            }
            if self.full {
                return;
            }
        }
    }

    fn entry(&mut self, entry: &fs::DirEntry, depth: usize) {
        let path = entry.path();
        let (link, target) = match (entry.file_type(), fs::metadata(&path)) {
            (Ok(kind), Ok(target)) => (kind.is_symlink(), target),
            (_, Err(error)) | (Err(error), _) => return self.unreadable(&path, &error),
        };
        if target.is_dir() && link {
            return self.refuse(&path, "linked-folder", "links to folders aren't followed", "put the folder itself here");
        }
        if target.is_dir() {
            return self.folder(&path, depth + 1);
        }
        if !path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            return;
        }
        if self.files.len() == FILES_MAX {
            self.full = true;
            return self.refuse(&path, "too-many", "there are more than 10000 files", "put several documents into one file");
        }
        self.files.push(path);
    }

    fn unreadable(&mut self, path: &Path, error: &std::io::Error) {
        self.problems.push(cannot_read(path, error));
    }

    fn refuse(&mut self, path: &Path, code: &'static str, message: &str, help: &str) {
        self.problems.push(Problem::of_file(path.display().to_string(), code, message, help));
    }
}
