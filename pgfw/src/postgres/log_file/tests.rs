use std::io::Write;

use super::*;

struct Log {
    folder: tempfile::TempDir,
}

impl Log {
    fn new() -> Log {
        let log = Log {
            folder: tempfile::tempdir().unwrap(),
        };
        log.name("a.json");
        log.write("a.json", "old\n");
        log
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn name(&self, name: &str) {
        fs::write(
            self.path("current_logfiles"),
            format!("stderr x.log\njsonlog {name}\n"),
        )
        .unwrap();
    }

    fn write(&self, name: &str, text: &str) {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.path(name))
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn follow(&self, from: Option<Position>) -> LogFile {
        LogFile {
            data: self.folder.path().to_owned(),
            owner: Owner::of(self.folder.path()).unwrap(),
            names: LogNames::of("%a.log"),
            open: None,
            from,
            whole: false,
        }
    }
}

fn lines(log: &mut LogFile) -> Vec<String> {
    let read = log.read().unwrap();
    assert_eq!(read.gap, None);
    read.lines
        .into_iter()
        .map(|l| String::from_utf8(l).unwrap())
        .collect()
}

#[test]
fn what_comes_is_read_once_and_in_whole_lines() {
    let log = Log::new();
    let mut follow = log.follow(None);
    assert!(lines(&mut follow).is_empty());
    log.write("a.json", "one\ntw");
    assert_eq!(lines(&mut follow), ["one"]);
    log.write("a.json", "o\n");
    assert_eq!(lines(&mut follow), ["two"]);
    log.write("a.json", &format!("{}\nthree\n", "x".repeat(3 * LONGEST_LINE)));
    assert_eq!(lines(&mut follow), ["three"]);
}

#[test]
fn rotations_lose_nothing() {
    let log = Log::new();
    let mut follow = log.follow(None);
    assert!(lines(&mut follow).is_empty());
    // Another name, and something still came to the former one.
    log.write("a.json", "one\n");
    log.name("b.json");
    log.write("b.json", "two\n");
    assert_eq!(lines(&mut follow), ["one", "two"]);
    // The same name again, truncated.
    fs::write(log.path("b.json"), "3\n").unwrap();
    assert_eq!(lines(&mut follow), ["3"]);
    // Somebody else's rotation: renamed, and made anew.
    log.write("b.json", "four\n");
    fs::rename(log.path("b.json"), log.path("b.1")).unwrap();
    log.write("b.json", "five\n");
    assert_eq!(lines(&mut follow), ["four", "five"]);
}

/// Shorter, as long, or longer than what was read of the former one: all of the new one is new.
#[test]
fn a_file_that_was_written_anew_is_read_from_its_beginning() {
    for text in ["3\n", "one of the new\n", "new one, and longer\nthan before\n"] {
        let log = Log::new();
        let mut follow = log.follow(None);
        assert!(lines(&mut follow).is_empty());
        log.write("a.json", "one and more\n");
        assert_eq!(lines(&mut follow), ["one and more"]);
        fs::write(log.path("a.json"), format!("{text}{text}")).unwrap();
        let new: Vec<&str> = text.lines().chain(text.lines()).collect();
        assert_eq!(lines(&mut follow), new);
        // The same while nobody looked, which is known to be a gap.
        let position = follow.position();
        fs::write(log.path("a.json"), format!("{}\n", "other ".repeat(20))).unwrap();
        let read = log.follow(position).read().unwrap();
        assert!(read.gap.unwrap().contains("a.json"), "{text}");
        assert_eq!(read.lines.len(), 1);
    }
}

/// What another server writes to the same folder was said of nobody here.
#[test]
fn a_neighbours_log_is_not_taken_for_the_next() {
    let log = Log::new();
    let mut follow = log.follow(None);
    assert!(lines(&mut follow).is_empty());
    log.write("a.json", "one\n");
    log.write("16-main.json", "another's\n");
    log.name("b.json");
    log.write("b.json", "two\n");
    let neighbour = OpenOptions::new()
        .append(true)
        .open(log.path("16-main.json"))
        .unwrap();
    neighbour
        .set_modified(SystemTime::now() + std::time::Duration::from_secs(60))
        .unwrap();
    assert_eq!(lines(&mut follow), ["one", "two"]);
    log.write("b.json", "three\n");
    assert_eq!(lines(&mut follow), ["three"]);
}

#[test]
fn a_restart_goes_on_where_it_was_or_says_what_is_missing() {
    let log = Log::new();
    let mut follow = log.follow(None);
    assert!(lines(&mut follow).is_empty());
    let position = follow.position();
    drop(follow);
    log.write("a.json", "one\n");
    log.name("b.json");
    log.write("b.json", "two\n");
    assert_eq!(lines(&mut log.follow(position.clone())), ["one", "two"]);

    fs::remove_file(log.path("a.json")).unwrap();
    let read = log.follow(position).read().unwrap();
    assert!(read.gap.unwrap().contains("a.json"));
    assert_eq!(read.lines, [b"two"]);
    fs::write(log.path("current_logfiles"), "stderr x.log\n").unwrap();
    let error = log.follow(None).read().unwrap_err();
    assert!(error.to_string().contains("json = true"), "{error}");
}
