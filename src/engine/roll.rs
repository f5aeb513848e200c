//! This replica's row, as it is kept: written in groups, by compare-and-set, and read together with the others'.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::try_join_all;

use super::book::{Book, Elsewhere};
use super::pods::BoundPod;
use super::turns::Turns;
use crate::domain::ids::{Name, VersionId};
use crate::domain::replicas::{Attendance, Head, PAGES, Presence, Removal, Report, Row, superfluous};
use crate::replicas::{Kept, Leaf, Mark, Part, Place, Rows, RowsError, rows_of};

/// How often a write starts over because somebody else wrote.
const TRIES: usize = 8;
const CROWDED: RowsError = RowsError::Unavailable("it is written by others all the time");

/// Our row, and the last reading of all of them.
pub(super) struct Roll {
    rows: Arc<dyn Rows>,
    me: Name,
    pages: Vec<Page>,
    head: tokio::sync::Mutex<OwnHead>,
    looks: Turns<Result<(), RowsError>>,
    seen: Mutex<Seen>,
    /// What is asked to go live here.
    asks: Mutex<BTreeSet<(Name, Name)>>,
    /// What was reported here, for who leads.
    reports: Mutex<BTreeSet<Report>>,
    /// (application, credential) that the journal knows to have been served.
    kept_seen: Mutex<BTreeSet<(Name, Name)>>,
}

#[derive(Default)]
struct Page {
    writes: Turns<Result<(), RowsError>>,
    mark: Mutex<Option<Mark>>,
    said: Mutex<Said>,
}

/// How often a page was written, and what was disclosed up to which serial stands there by the last writing.
#[derive(Default, Clone, Copy)]
struct Said {
    writings: u64,
    serial: u64,
}

impl Page {
    fn said(&self) -> Said {
        *self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_said(&self, serial: u64) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        *said = Said { writings: said.writings + 1, serial };
    }
}

#[derive(Default)]
struct OwnHead {
    mark: Option<Mark>,
    beat: u64,
    /// The book's serial when it was last written.
    serial: u64,
}

/// The rows as last read, and who gave a sign of life when.
#[derive(Default)]
struct Seen {
    kept: Vec<Kept>,
    attendance: Attendance,
    running: Duration,
}

impl fmt::Debug for Roll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roll").field("me", &self.me).finish_non_exhaustive()
    }
}

impl Roll {
    /// `me` is a name that no other process ever had: its row is new.
    pub(super) fn new(rows: Arc<dyn Rows>, me: Name) -> Roll {
        let pages = (0..PAGES).map(|_| Page::default()).collect();
        Roll {
            rows,
            me,
            pages,
            head: tokio::sync::Mutex::default(),
            looks: Turns::default(),
            seen: Mutex::default(),
            asks: Mutex::default(),
            reports: Mutex::default(),
            kept_seen: Mutex::default(),
        }
    }

    pub(super) fn me(&self) -> &Name {
        &self.me
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, part: Part) -> Place {
        Place { replica: self.me.clone(), part }
    }

    /// Makes these pages say what the book says now, or later. Durable when it returns.
    pub(super) async fn flush(&self, book: &Book, pages: &BTreeSet<u8>) -> Result<(), RowsError> {
        let writes = pages.iter().filter_map(|number| Some((*number, self.pages.get(usize::from(*number))?)));
        let writes = writes.map(|(number, page)| page.writes.share(self.write_page(book, number, page)));
        try_join_all(writes).await.map(drop)
    }

    /// Makes a page say what was disclosed with this serial. Durable when it returns, by a writing that ended after this call. Of many who
    /// are served at once most are content with one that had begun before: what is disclosed is on the books before it is audited.
    pub(super) async fn say(&self, book: &Book, number: u8, serial: u64) -> Result<(), RowsError> {
        let Some(page) = self.pages.get(usize::from(number)) else { return Ok(()) };
        let before = page.said().writings;
        let is_said = || {
            let said = page.said();
            (said.writings > before && said.serial >= serial).then_some(Ok(()))
        };
        page.writes.share_unless(is_said, self.write_page(book, number, page)).await
    }

    async fn write_page(&self, book: &Book, number: u8, page: &Page) -> Result<(), RowsError> {
        let place = self.place(Part::Page(number));
        // Whoever is ready to run says first what one writing takes along: a page costs as much to write for one as for all on it.
        tokio::task::yield_now().await;
        let outcome = self.try_to_write(book, &place, number, page).await;
        if outcome.is_err() {
            book.make_dirty(number);
        }
        outcome
    }

    async fn try_to_write(&self, book: &Book, place: &Place, number: u8, page: &Page) -> Result<(), RowsError> {
        let mark = || page.mark.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..TRIES {
            let expected = mark().clone();
            // The serial first: what has it, or a lower one, is among the entries.
            let serial = book.serial();
            let entries = book.page(number);
            if entries.is_empty() && expected.is_none() {
                return Ok(());
            }
            match self.rows.write(place, &Leaf::Page(entries), expected.as_ref()).await {
                Ok(written) => {
                    *mark() = Some(written);
                    page.note_said(serial);
                    return Ok(());
                }
                // Only we write our pages: this was a write of ours whose answer was lost, or the leader took us for gone.
                Err(RowsError::Conflict) => {
                    let kept = self.rows.of(&self.me).await?;
                    *mark() = kept.into_iter().find(|kept| kept.place == *place).map(|kept| kept.mark);
                }
                Err(error) => return Err(error),
            }
        }
        Err(CROWDED)
    }

    /// A sign of life; what the leader wrote for us is taken up, and durable on our pages before it is struck out.
    pub(super) async fn beat(&self, book: &Book) -> Result<(), RowsError> {
        let mut own = self.head.lock().await;
        let place = self.place(Part::Head);
        own.beat += 1;
        for _ in 0..TRIES {
            let serial = book.serial();
            let asks = self.asks.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let reports = self.reports().clone();
            let head = Head { beat: own.beat, removals: BTreeSet::new(), asks, reports };
            match self.rows.write(&place, &Leaf::Head(head), own.mark.as_ref()).await {
                Ok(mark) => {
                    own.mark = Some(mark);
                    own.serial = serial;
                    return Ok(());
                }
                Err(RowsError::Conflict) => {
                    let kept = self.rows.of(&self.me).await?.into_iter().find(|kept| kept.place == place);
                    match (&kept, &own.mark) {
                        (Some(Kept { leaf: Leaf::Head(head), .. }), _) => {
                            book.take_up_removals(&head.removals);
                            let touched = head.removals.iter().map(|it| crate::domain::replicas::page_of(&it.application, &it.instance));
                            self.flush(book, &touched.collect()).await?;
                        }
                        (None, Some(_)) => {
                            tracing::warn!("the row of this replica was removed as that of one that is gone; it is written anew");
                            book.take_up_end_of_row(own.serial);
                        }
                        _ => {}
                    }
                    own.mark = kept.map(|kept| kept.mark);
                }
                Err(error) => return Err(error),
            }
        }
        Err(CROWDED)
    }

    /// Reads all rows, in a reading that began after this call, and takes over what the others say.
    pub(super) async fn look(
        &self,
        book: &Book,
        order: impl Fn(&Name, &VersionId) -> u64,
        running: impl Fn() -> Duration,
    ) -> Result<(), RowsError> {
        self.looks
            .share(async {
                let kept = self.rows.all().await?;
                let now = running();
                let others: Vec<Row> = rows_of(&kept).iter().filter(|row| row.replica != self.me).map(Row::remaining).collect();
                let elsewhere = {
                    let mut seen = self.seen();
                    seen.attendance.note(&others, now);
                    seen.running = now;
                    seen.kept = kept;
                    Elsewhere::of(&others, &seen.attendance, now)
                };
                book.set_elsewhere(elsewhere);
                book.strike_confirmed(&order);
                Ok(())
            })
            .await
    }

    /// All leases, and the patience with silent replicas, begin anew: we begin to lead.
    pub(super) fn begin_anew(&self, running: Duration) {
        self.seen().attendance.begin_anew(running);
    }

    /// What of these the journal isn't known to have.
    pub(super) fn unkept(&self, mut seen: BTreeSet<(Name, Name)>) -> Vec<(Name, Name)> {
        let kept = self.kept_seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|pair| !kept.contains(pair));
        seen.into_iter().collect()
    }

    /// The journal has these.
    pub(super) fn note_kept(&self, seen: impl IntoIterator<Item = (Name, Name)>) {
        self.kept_seen.lock().unwrap_or_else(PoisonError::into_inner).extend(seen);
    }

    /// What replicas are asked to let go live, as last read.
    pub(super) fn asked_live(&self) -> BTreeSet<(Name, Name)> {
        let heads = |kept: &Kept| if let Leaf::Head(head) = &kept.leaf { head.asks.clone() } else { BTreeSet::new() };
        self.seen().kept.iter().flat_map(heads).collect()
    }

    /// The leader is asked to let this go live, with our next sign of life.
    pub(super) fn ask_live(&self, application: &Name, credential: &Name) {
        self.asks.lock().unwrap_or_else(PoisonError::into_inner).insert((application.clone(), credential.clone()));
    }

    pub(super) fn answered_live(&self, is_live: impl Fn(&Name, &Name) -> bool) {
        self.asks.lock().unwrap_or_else(PoisonError::into_inner).retain(|(application, credential)| !is_live(application, credential));
    }

    fn reports(&self) -> MutexGuard<'_, BTreeSet<Report>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was reported at replicas, as last read.
    pub(super) fn reported(&self) -> BTreeSet<Report> {
        let heads = |kept: &Kept| if let Leaf::Head(head) = &kept.leaf { head.reports.clone() } else { BTreeSet::new() };
        self.seen().kept.iter().flat_map(heads).collect()
    }

    /// Leaves a report to who leads; durable when it returns.
    pub(super) async fn report(&self, book: &Book, report: Report) -> Result<(), RowsError> {
        self.reports().insert(report.clone());
        let told = self.beat(book).await;
        if told.is_err() {
            self.reports().remove(&report);
        }
        told
    }

    /// Only those stay that may still change something.
    pub(super) fn keep_reports(&self, is_open: impl Fn(&Report) -> bool) {
        self.reports().retain(is_open);
    }

    /// The removals that make these instances hold nothing any more at other replicas, by what was last read.
    pub(super) fn removals_of(
        &self,
        wanted: impl Fn(&crate::domain::replicas::Instance) -> bool,
        expired: bool,
    ) -> BTreeMap<Name, Vec<Removal>> {
        let rows = rows_of(&self.seen().kept);
        let mut removals: BTreeMap<Name, Vec<Removal>> = BTreeMap::new();
        for row in rows.iter().filter(|row| row.replica != self.me).map(Row::remaining) {
            for (instance, presence) in row.presences.iter().filter(|(instance, _)| wanted(instance)) {
                let (application, instance) = instance.clone();
                let removal = Removal { application, instance, up_to: presence.serial(), expired, pod: None };
                removals.entry(row.replica.clone()).or_default().push(removal);
            }
        }
        removals
    }

    /// The removals that free at other replicas what this pod alone held, by what was last read.
    pub(super) fn removals_of_pod(&self, gone: &BoundPod) -> BTreeMap<Name, Vec<Removal>> {
        let key = (gone.application.clone(), gone.instance.clone());
        let by_it = |presence: &Presence| presence.holdings.values().any(|held| held.pods.contains_key(&gone.pod.uid));
        let mut removals = BTreeMap::new();
        for row in rows_of(&self.seen().kept).iter().filter(|row| row.replica != self.me).map(Row::remaining) {
            let Some(presence) = row.presences.get(&key).filter(|presence| by_it(presence)) else { continue };
            let (application, instance) = key.clone();
            let pod = Some(gone.pod.uid.clone());
            let removal = Removal { application, instance, up_to: presence.serial(), expired: false, pod };
            removals.insert(row.replica.clone(), vec![removal]);
        }
        removals
    }

    /// Leaves word in the heads of these rows. The leader's alone.
    pub(super) async fn strike(&self, removals: BTreeMap<Name, Vec<Removal>>) -> Result<(), RowsError> {
        for (replica, removals) in removals {
            self.strike_in(&Place { replica, part: Part::Head }, &removals).await?;
        }
        Ok(())
    }

    async fn strike_in(&self, place: &Place, removals: &[Removal]) -> Result<(), RowsError> {
        for _ in 0..TRIES {
            let found = self.rows.of(&place.replica).await?.into_iter().find(|kept| kept.place == *place);
            let (mut head, mark) = match found {
                Some(Kept { leaf: Leaf::Head(head), mark, .. }) => (head, Some(mark)),
                Some(_) => return Err(RowsError::Damaged("a head isn't one")),
                None => (Head::default(), None),
            };
            head.removals.extend(removals.iter().cloned());
            match self.rows.write(place, &Leaf::Head(head), mark.as_ref()).await {
                Ok(_) => return Ok(()),
                Err(RowsError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(CROWDED)
    }

    /// Empties the rows of replicas that are gone of what others answer for, and removes those that say nothing any more. The
    /// leader's alone.
    pub(super) async fn clear_gone(&self, order: impl Fn(&Name, &VersionId) -> u64) -> Result<(), RowsError> {
        let (kept, gone) = {
            let seen = self.seen();
            let is_gone = |replica: &Name| *replica != self.me && seen.attendance.is_gone(replica, seen.running);
            let replicas: BTreeSet<Name> = seen.kept.iter().map(|kept| kept.place.replica.clone()).filter(is_gone).collect();
            if replicas.is_empty() {
                return Ok(());
            }
            (seen.kept.clone(), replicas)
        };
        let rows: Vec<Row> = rows_of(&kept).iter().map(Row::remaining).collect();
        let (gone, living): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| gone.contains(&row.replica));
        for row in gone {
            let removals = superfluous(row, &living, &order);
            let says_something = row.presences.values().any(|presence| !presence.holdings.is_empty());
            if !says_something {
                self.remove(&kept, &row.replica).await?;
            } else if !removals.is_empty() {
                self.strike_in(&Place { replica: row.replica.clone(), part: Part::Head }, &removals).await?;
            }
        }
        Ok(())
    }

    /// Page by page, the head last: whose owner comes back meanwhile finds it, or writes a page that isn't what was read any more.
    async fn remove(&self, kept: &[Kept], replica: &Name) -> Result<(), RowsError> {
        let of_row = || kept.iter().filter(|kept| kept.place.replica == *replica);
        let pages = of_row().filter(|kept| kept.place.part != Part::Head);
        for kept in pages.chain(of_row().filter(|kept| kept.place.part == Part::Head)) {
            match self.rows.remove(&kept.place, &kept.mark).await {
                Ok(()) => {}
                Err(RowsError::Conflict) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        tracing::info!(%replica, "the row of a replica that is gone says nothing any more, and is removed");
        Ok(())
    }
}
