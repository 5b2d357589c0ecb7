//! What must always hold, by name: the one list of it.
//!
//! The unit an input touches is looked at after every input; everything is looked at every so many events and at the end.
//! None of these trusts what a farm says of itself where it can be seen from outside: what is on disks, on the wire, in
//! folders, and what a second, simpler reading of all ops gives.

/// Something that must never be otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// What any disk held, synced, of honest machines is known to everyone in the end: an op is lost only with every
    /// machine that has it.
    NothingDurableIsLost,
    /// A machine tells of its own ops only what a crash could not take back.
    AnnouncedIsDurable,
    /// A unit that a start of a machine saw done in an epoch is done in it for as long as that start lives, unless somebody
    /// is caught with two histories of the job. What is lost gets a new epoch.
    DoneStaysDone,
    /// The state of a job is a function of the set of its ops: whatever the order between actors, and whoever folds.
    FoldIsFunction,
    /// The state of a job is what a second, simpler reading of its ops says: epochs, results, settings, the end.
    FoldIsRight,
    /// Machines with equal ledgers see equal jobs.
    EqualLedgersEqualJobs,
    /// A machine renders only what it may: with the right Blender, the whole bundle, a free slot, the tags and memory asked
    /// for, no more attempts than the job allows, after the job that comes first, and nothing paused.
    RulesHold,
    /// Once everyone can hear everyone, nobody renders a job that as many stronger machines render as it
    /// allows.
    FewMachines,
    /// Nothing of a cancelled job is begun or goes on where that is known.
    CanceledStops,
    /// Who is paused, leaving, or just woke from a suspend claims and begins nothing.
    OffDutyClaimsNothing,
    /// Whose owner wants it back, or who is to leave, renders nothing from that moment on.
    OwnerWins,
    /// Once everyone can hear everyone, no more than two machines render the same unit for more than a moment.
    TwoCopies,
    /// A unit is rendered once at a time by a machine, and not begun over and over.
    NoCircles,
    /// A job whose submitter is away is rendered by the others, each result held twice.
    AwayIsReplicated,
    /// A video is finished when its frames are there, and only what is in the store is read or delivered.
    OnlyWhatIsThere,
    /// A machine says to have lost only what it does not have; and only a job's owner opens a new epoch of what is lost, of
    /// nothing that is in its folder, and of no job that is over.
    OnlyLostIsLost,
    /// What a machine announces of another job's results it has, and it was rendered for the first epoch of the same frame of
    /// the same scene with the same settings, which nobody who is known wanted anew; and the job asked for it.
    ReusedIsSame,
    /// A sound job is accepted, and every message is legal.
    NothingSoundIsRefused,
    /// Queues, messages, effects of one input, and what waits for a disk have bounds.
    Bounded,
    /// In the end every owner has every result of the epoch it was last asked for.
    OwnersHaveAll,
    /// A job that anybody forgot for good is forgotten by everyone in the end, and nothing of it goes on where that is
    /// known; a disk has its id and no row of it.
    RetiredIsGone,
    /// Once faults stop everything comes to its end.
    EverythingEnds,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::NothingDurableIsLost,
        Self::AnnouncedIsDurable,
        Self::DoneStaysDone,
        Self::FoldIsFunction,
        Self::FoldIsRight,
        Self::EqualLedgersEqualJobs,
        Self::RulesHold,
        Self::FewMachines,
        Self::CanceledStops,
        Self::OffDutyClaimsNothing,
        Self::OwnerWins,
        Self::TwoCopies,
        Self::NoCircles,
        Self::AwayIsReplicated,
        Self::OnlyWhatIsThere,
        Self::OnlyLostIsLost,
        Self::ReusedIsSame,
        Self::NothingSoundIsRefused,
        Self::Bounded,
        Self::OwnersHaveAll,
        Self::RetiredIsGone,
        Self::EverythingEnds,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::NothingDurableIsLost => "nothing durable is lost",
            Self::AnnouncedIsDurable => "nothing is announced before it is durable",
            Self::DoneStaysDone => "a unit done stays done within an epoch",
            Self::FoldIsFunction => "the fold is a function of the set of ops",
            Self::FoldIsRight => "the fold says what the ops say",
            Self::EqualLedgersEqualJobs => "equal ledgers mean equal jobs",
            Self::RulesHold => "no machine renders what the rules forbid it",
            Self::FewMachines => "no more machines render a job than it allows",
            Self::CanceledStops => "cancelled jobs stop",
            Self::OffDutyClaimsNothing => "nobody off duty claims",
            Self::OwnerWins => "a machine that is wanted back is free at once",
            Self::TwoCopies => "at most two copies of a unit are rendered",
            Self::NoCircles => "no machine begins a unit over and over",
            Self::AwayIsReplicated => "while its owner is away a job is rendered, each result held twice",
            Self::OnlyWhatIsThere => "only what is there is read, delivered and encoded",
            Self::OnlyLostIsLost => "only what is gone is lost, and only what is lost is rendered anew",
            Self::ReusedIsSame => "only what is the same is taken over from another job",
            Self::NothingSoundIsRefused => "nothing sound is refused",
            Self::Bounded => "queues, messages and memory have bounds",
            Self::OwnersHaveAll => "every owner has every result",
            Self::RetiredIsGone => "a retired job is gone everywhere and for good",
            Self::EverythingEnds => "everything comes to its end once faults stop",
        }
    }
}

impl std::fmt::Display for Invariant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
