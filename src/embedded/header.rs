//! One bit of the file says which of its two commit slots counts, and nothing protects that bit: flipped, it would take back
//! the last commit unseen. Both slots carry the number of their transaction and a checksum, so it shows.
//!
//! Where the other slot is whole and newer (the bit was flipped, or the daemon died between the two phases of a commit), the
//! flags are set so that redb itself takes the newest slot whose pages are whole. Rolling a commit forward that nobody was told
//! of does no harm.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use twox_hash::XxHash3_128;

// redb's file format 3: nine bytes of magic, one of flags; two slots of 128 bytes, each with its version first, the number of
// its transaction at 104, its checksum at 112.
const MAGIC: &[u8; 9] = b"redb\x1A\x0A\xA9\x0D\x0A";
const FLAGS: usize = 9;
const SLOTS: usize = 64;
const SLOT_LENGTH: usize = 128;
const SLOT_VERSION: u8 = 3;
const TRANSACTION: usize = 104;
const CHECKSUM: usize = 112;
const HEADER: usize = SLOTS + 2 * SLOT_LENGTH;
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
    file.write_all_at(&[flags], FLAGS as u64)?;
    file.sync_all()
}

/// The flags that let the newer slot count, if the slot that counts is the older of two whole ones. If one isn't whole, its
/// number means nothing, and redb judges.
fn corrected(header: &[u8; HEADER]) -> Option<u8> {
    let flags = header[FLAGS];
    let primary = usize::from(flags & SECOND_IS_PRIMARY != 0);
    let stale = header.starts_with(MAGIC) && transaction(header, 1 - primary)? > transaction(header, primary)?;
    stale.then_some((flags & !TWO_PHASE) | RECOVERY_REQUIRED)
}

/// The number of a slot's transaction, if the slot is whole.
fn transaction(header: &[u8; HEADER], index: usize) -> Option<u64> {
    let slot = header.get(SLOTS + index * SLOT_LENGTH..)?.first_chunk::<SLOT_LENGTH>()?;
    let checksum = u128::from_le_bytes(*slot[CHECKSUM..].first_chunk()?);
    let whole = slot[0] == SLOT_VERSION && XxHash3_128::oneshot(&slot[..CHECKSUM]) == checksum;
    whole.then(|| slot[TRANSACTION..].first_chunk().copied().map(u64::from_le_bytes)).flatten()
}
