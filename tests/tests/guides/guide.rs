//! A guide as its reader sees it, and that guides and tests belong together.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pgfw_tests::lab::{Host, Instance, join};

/// The text of docs/guides/NAME.md.
pub(crate) struct Guide {
    text: String,
}

/// What stands between two fences. Its first line is a comment that says what it is.
pub(crate) struct Block {
    pub(crate) language: String,
    pub(crate) title: String,
    pub(crate) text: String,
}

impl Guide {
    pub(crate) fn read(name: &str) -> Guide {
        let path = folder(GUIDES).join(format!("{name}.md"));
        let text = std::fs::read_to_string(&path);
        Guide {
            text: text.unwrap_or_else(|error| panic!("{}: {error}", path.display())),
        }
    }

    /// The block with this title; one that stands besides the first of its language comes with it.
    #[track_caller]
    pub(crate) fn block(&self, title: &str) -> String {
        let blocks = self.blocks();
        let found = blocks.iter().find(|block| block.title == title);
        let block = found.unwrap_or_else(|| panic!("no block begins with # {title}"));
        if !title.ends_with(BESIDES) {
            return block.text.clone();
        }
        let first = blocks
            .iter()
            .find(|first| first.language == block.language)
            .unwrap();
        format!("{}{}", first.text, block.text)
    }

    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut lines = self.text.lines();
        while let Some(line) = lines.next() {
            let Some(language) = line.strip_prefix("```") else {
                continue;
            };
            let inside: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            let title = inside
                .first()
                .map_or("", |first| first.trim_start_matches(['#', ';', ' ']));
            blocks.push(Block {
                language: language.to_owned(),
                title: title.to_owned(),
                text: inside.join("\n") + "\n",
            });
        }
        blocks
    }
}

/// How the title of a block ends that is to be added to the guide's config.
const BESIDES: &str = ", besides the above";

const GUIDES: &str = "docs/guides";
const TESTS: &str = "tests/tests/guides";

/// Files here that are no guide's test.
const HELPERS: [&str; 3] = ["main", "guide", "lan"];

/// Commands for a person; everything else that is fenced is read by a test.
const COMMANDS: &str = "sh";

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The names of a folder's files of one kind, without it.
fn names(path: &str, extension: &str) -> BTreeSet<String> {
    let files = folder(path)
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path());
    files
        .filter(|file| file.extension().is_some_and(|found| found == extension))
        .map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect()
}

fn guides() -> BTreeSet<String> {
    let mut guides = names(GUIDES, "md");
    assert!(guides.remove("README"), "the index is missing");
    guides
}

#[test]
fn every_guide_has_a_test_and_every_test_a_guide() {
    let mut tests = names(TESTS, "rs");
    for helper in HELPERS {
        assert!(tests.remove(helper), "{helper}");
    }
    assert_eq!(guides(), tests);
    let main = std::fs::read_to_string(folder(TESTS).join("main.rs")).unwrap();
    for name in tests {
        assert!(main.contains(&format!("mod {name};\n")), "{name} is not compiled");
        let test = std::fs::read_to_string(folder(TESTS).join(format!("{name}.rs"))).unwrap();
        assert!(test.contains("#[test]"), "{name}.rs tests nothing");
        assert!(
            test.contains(&format!("Guide::read(\"{name}\")")),
            "{name}.rs reads another guide"
        );
        for block in Guide::read(&name).blocks() {
            let is_read = block.language == COMMANDS || test.contains(&format!("block(\"{}\")", block.title));
            assert!(is_read, "nothing reads the block {:?} of {name}.md", block.title);
        }
    }
}

#[test]
fn the_index_names_every_guide_and_the_readme_the_index() {
    let index = Guide::read("README").text;
    for name in guides() {
        assert!(
            index.contains(&format!("]({name}.md)")),
            "{name} is not in the index"
        );
    }
    let readme = std::fs::read_to_string(folder("README.md")).unwrap();
    assert!(readme.contains("(docs/guides/README.md)"));
}

#[test]
fn config_check_accepts_every_config_of_every_guide() {
    let host = Host::new("db");
    let other = Host::new("other");
    join((&host, "eth0"), (&other, "eth0"));
    let pgfw = Instance::new(&host);
    for name in guides() {
        let guide = Guide::read(&name);
        let blocks = guide.blocks();
        let configs: Vec<&Block> = blocks.iter().filter(|block| block.language == "toml").collect();
        assert!(!configs.is_empty(), "{name} has no config");
        for Block { title, .. } in configs {
            pgfw.configure(&guide.block(title));
            let checked = pgfw.pgfw(&["config", "check"]);
            assert!(checked.success(), "{name}, {title}: {}", checked.stderr);
        }
    }
    // The check tells one from the other.
    pgfw.configure("[[service]]\nname = \"portless\"\n");
    assert_eq!(pgfw.pgfw(&["config", "check"]).code, Some(2));
}
