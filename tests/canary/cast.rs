//! The secrets of one life, all of one shape, the same in each life of that shape; and the scanner that knows them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use keywright::domain::material::Secret;
use keywright::issuers::memory::SecretMaker;

use crate::support::canaries::{Canary, Shape};
use crate::support::scanner::Scanner;

/// Keys that a provider makes in one life at most, those of others included.
const KEYS_MAX: usize = 10;

pub struct Cast {
    pub shape: Shape,
    pub scanner: Arc<Scanner>,
    /// What the provider mints, one after the other.
    minted: Arc<Vec<Canary>>,
    made: Arc<AtomicUsize>,
    /// What is submitted and refused, or sent where it doesn't belong.
    pub refused: Arc<Canary>,
    /// The token of the application. It goes over the wire with each of its calls.
    pub token: Arc<Canary>,
}

impl Cast {
    pub fn new(shape: Shape) -> Cast {
        let minted: Vec<Canary> =
            (1..=KEYS_MAX).map(|number| named(&format!("minted {number}"), Canary::shaped(shape, number as u64))).collect();
        let refused = named("refused", Canary::shaped(shape, 1000));
        let token = Canary::whole("application token", &Canary::shaped(Shape::Short, 2000).value.repeat(3));
        let scanner = Scanner::new(minted.iter().chain([&refused, &token]));
        Cast {
            shape,
            scanner: Arc::new(scanner),
            minted: Arc::new(minted),
            made: Arc::default(),
            refused: Arc::new(refused),
            token: Arc::new(token),
        }
    }

    /// The same secrets for another life.
    pub fn again(&self) -> Cast {
        let Cast { shape, scanner, minted, refused, token, .. } = self;
        let (scanner, minted, refused, token) = (scanner.clone(), minted.clone(), refused.clone(), token.clone());
        Cast { shape: *shape, scanner, minted, made: Arc::default(), refused, token }
    }

    pub fn maker(&self) -> SecretMaker {
        let (minted, made) = (self.minted.clone(), self.made.clone());
        Arc::new(move |_| Secret::from(minted[made.fetch_add(1, Ordering::Relaxed)].value.clone()))
    }

    /// The secret that was minted last.
    pub fn last_minted(&self) -> &str {
        &self.minted[self.made.load(Ordering::Relaxed) - 1].value
    }
}

fn named(name: &str, canary: Canary) -> Canary {
    Canary { name: name.to_owned(), ..canary }
}
