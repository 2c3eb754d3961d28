//! Named steps at which a test can have this process killed: a crash is tried at each of them, not at a random time.
//!
//! They are in debug builds only, which are what the tests run: of a release build no step, no name and no look at the
//! environment is left, so there is nothing in production that anyone could trigger. (A feature of cargo would do the
//! same and let the tests run something else than what was built.)

/// Says what the steps are to do: `NAME` kills this process when it comes to the step NAME, `NAME:3` at the third time;
/// `trace:FILE` appends the name of each step to FILE.
pub const VARIABLE: &str = "PGFW_FAULT";

macro_rules! steps {
    ($($(#[$about:meta])* $step:ident = $name:literal,)*) => {
        /// A moment between two things that a crash must not leave apart.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Step { $($(#[$about])* $step,)* }

        impl Step {
            pub const ALL: &[Step] = &[$(Step::$step,)*];

            pub const fn name(self) -> &'static str {
                match self { $(Step::$step => $name,)* }
            }
        }
    };
}

steps! {
    // Start.
    LedgerOpened = "ledger-opened",
    PinsClaimed = "pins-claimed",
    DatapathOpened = "datapath-opened",
    Settled = "settled",
    /// The entry is on an interface's way in, and nothing on its way out.
    AttachedIn = "attached-in",
    /// On every interface that matches.
    AttachedAll = "attached-all",
    /// The policy that was confirmed is in its slot, and everything passes still.
    ConfirmedLoaded = "confirmed-loaded",
    ConfirmedJudges = "confirmed-judges",
    Refreshed = "refreshed",
    SocketMade = "socket-made",
    Ready = "ready",
    // A new generation.
    GenerationRecorded = "generation-recorded",
    /// Its tables are made and pinned, its programs are not.
    TablesFilled = "tables-filled",
    /// Its programs are pinned, and in no slot.
    ProgramsPinned = "programs-pinned",
    /// In the slot of the way out, and not of the way in.
    HalfInSlot = "half-in-slot",
    InSlot = "in-slot",
    Pending = "pending",
    PendingAttached = "pending-attached",
    // Kept.
    ConfirmRecorded = "confirm-recorded",
    ConfirmJudges = "confirm-judges",
    ConfirmCollected = "confirm-collected",
    ConfirmMarked = "confirm-marked",
    // Given up.
    UndoneInKernel = "undone-in-kernel",
    UndoRecorded = "undo-recorded",
    UndoAttached = "undo-attached",
    UndoCollected = "undo-collected",
    // A single change.
    EntryRecorded = "entry-recorded",
    /// A table's rows say what is new, and nobody finds it; the table says that it is being changed.
    RowsPut = "rows-put",
    EntryInKernel = "entry-in-kernel",
    ConnectionsCut = "connections-cut",
    // A lease.
    /// In the ledger, or out of it; the tables are the former ones.
    LeaseRecorded = "lease-recorded",
    LeaseInKernel = "lease-in-kernel",
    // A server's certificate that is renewed.
    /// Issued and in its place; the server's files are the former ones.
    RenewalIssued = "renewal-issued",
    /// A generation of files holds it, and nothing leads there.
    RenewalWritten = "renewal-written",
    /// The files lead to it, and the server was not told.
    RenewalSwitched = "renewal-switched",
    /// It is served, and not marked as proven.
    RenewalProven = "renewal-proven",
    // An authority that is replaced.
    /// It is said that another comes, and there is none.
    RotationBegun = "rotation-begun",
    /// It is there, signs nothing, and no server was told.
    RotationMade = "rotation-made",
    /// Every server trusts both, and the old one signs.
    RotationTrusted = "rotation-trusted",
    /// The new one signs.
    RotationSigns = "rotation-signs",
    /// What goes signs nothing and is in no bundle any more; servers were not told.
    RotationDropping = "rotation-dropping",
    /// No server trusts it or serves what it signed; what is left of it is not revoked.
    RotationUntrusted = "rotation-untrusted",
    /// What was left of it is revoked, and sessions go on.
    RotationRevoked = "rotation-revoked",
    /// Out of sight, with its key.
    RotationMoved = "rotation-moved",
    /// Without its key; its lists are published still.
    RotationKeyGone = "rotation-key-gone",
    // PostgreSQL's files, by `pg apply`.
    ApplyWritten = "apply-written",
    /// A scratch server took it.
    ApplyTried = "apply-tried",
    /// What is to be changed is noted, and nothing of it done.
    ApplyNoted = "apply-noted",
    /// `current` leads to the new generation.
    ApplyChosen = "apply-chosen",
    /// A live name's file has a second name.
    ApplyKept = "apply-kept",
    ApplyLinked = "apply-linked",
    ApplySwitched = "apply-switched",
    ApplyTold = "apply-told",
    ApplyProven = "apply-proven",
    /// Marked as proven, and the note of what was changed still there.
    ApplyMarked = "apply-marked",
    /// One change of an apply is taken back.
    UndoneOne = "undone-one",
    UndoneFiles = "undone-files",
    UndoneTold = "undone-told",
    // The end.
    StopHeard = "stop-heard",
    SocketGone = "socket-gone",
    Detached = "detached",
}

/// Goes on, unless a test wants this process to end here.
#[inline]
pub fn step(step: Step) {
    #[cfg(debug_assertions)]
    armed::come_to(step);
    #[cfg(not(debug_assertions))]
    let _ = step;
}

#[cfg(debug_assertions)]
mod armed {
    use std::io::Write;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::{Step, VARIABLE};

    pub(super) fn come_to(step: Step) {
        static TIMES: AtomicU32 = AtomicU32::new(0);
        let Ok(wanted) = std::env::var(VARIABLE) else {
            return;
        };
        if let Some(file) = wanted.strip_prefix("trace:") {
            let opened = std::fs::OpenOptions::new().append(true).create(true).open(file);
            let written = opened.and_then(|mut file| writeln!(file, "{}", step.name()));
            return written.expect("the file of a trace can be written");
        }
        let (name, time) = match wanted.split_once(':') {
            Some((name, time)) => (name, time.parse().expect("a step's number is a number")),
            None => (wanted.as_str(), 1),
        };
        if name == step.name() && TIMES.fetch_add(1, Ordering::SeqCst) + 1 == time {
            // As a crash is: nothing is dropped, flushed or said.
            let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Step;

    #[test]
    fn no_two_steps_have_one_name() {
        let names: BTreeSet<&str> = Step::ALL.iter().map(|step| step.name()).collect();
        assert_eq!(names.len(), Step::ALL.len());
    }
}
