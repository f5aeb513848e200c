//! What stands in the files of a delivery: rendered into memory that is wiped.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use crate::domain::document::Document;

/// A value on its way into a file.
pub(super) type Bytes = Zeroizing<Vec<u8>>;

/// What an application is given, by name.
pub(super) struct Tree {
    /// Names in the folder itself.
    pub(super) entries: BTreeMap<String, Entry>,
}

pub(super) enum Entry {
    File(Bytes),
    /// One file per field.
    Folder(BTreeMap<String, Bytes>),
}

impl Tree {
    pub(super) fn of<'d>(documents: impl Iterator<Item = &'d Document>) -> Tree {
        let mut entries = BTreeMap::new();
        for document in documents {
            let fields = document.fields.iter();
            let fields = fields.map(|(name, value)| (name.to_string(), Zeroizing::new(value.expose().to_vec())));
            entries.insert(document.name.to_string(), Entry::Folder(fields.collect()));
            entries.insert(format!("{}.json", document.name), Entry::File(document.lasting_json()));
        }
        Tree { entries }
    }
}
