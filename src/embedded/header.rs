//! One bit of the file says which of its two commit slots counts, and nothing protects that bit: flipped, it would take back
//! the last commit unseen. Both slots carry the number of their transaction, so it shows.
//!
//! Where the other slot is newer (the bit was flipped, or the daemon died between the two phases of a commit), the flags are set
//! so that redb itself takes the newest slot whose checksums hold. Rolling a commit forward that nobody was told of does no harm.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

// redb's file format 3: nine bytes of magic, one of flags; two slots of 128 bytes, each with its version first.
const MAGIC: &[u8; 9] = b"redb\x1A\x0A\xA9\x0D\x0A";
const FLAGS: usize = 9;
const SLOTS: [usize; 2] = [64, 192];
const SLOT_VERSION: u8 = 3;
const TRANSACTION: usize = 104;
const HEADER: usize = 320;
const SECOND_IS_PRIMARY: u8 = 1;
const RECOVERY_REQUIRED: u8 = 2;
const TWO_PHASE: u8 = 4;

/// Must run under the directory's lock: the file is nobody's then.
pub(super) fn prefer_newest_commit(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut header = [0; HEADER];
    if let Err(error) = file.read_exact_at(&mut header, 0) {
        // Too short to be anything: opening it will say so.
        return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(()) } else { Err(error) };
    }
    let Some(flags) = corrected(&header) else { return Ok(()) };
    if !primary_slot_holds(path) {
        return Ok(());
    }
    file.write_all_at(&[flags], FLAGS as u64)?;
    file.sync_all()
}

/// Whether the slot that counts is whole: if it isn't, its number means nothing, and the older slot must not win by it.
/// Opened for reading, redb looks at the slot's checksum and changes nothing.
fn primary_slot_holds(path: &Path) -> bool {
    matches!(redb::Builder::new().open_read_only(path), Ok(_) | Err(redb::DatabaseError::RepairAborted))
}

fn corrected(header: &[u8; HEADER]) -> Option<u8> {
    let flags = header[FLAGS];
    let known = header.starts_with(MAGIC) && SLOTS.iter().all(|slot| header[*slot] == SLOT_VERSION);
    let number = |slot: usize| {
        let bytes = header.get(SLOTS[slot] + TRANSACTION..)?.first_chunk::<8>()?;
        Some(u64::from_le_bytes(*bytes))
    };
    let primary = usize::from(flags & SECOND_IS_PRIMARY != 0);
    let stale = known && number(1 - primary)? > number(primary)?;
    stale.then_some((flags & !TWO_PHASE) | RECOVERY_REQUIRED)
}
