//! The scanner's positive controls: each shape in each encoding is found, and what is innocent is not.

use crate::support::canaries::{Canary, SHAPES, Shape};
use crate::support::encodings::{ENCODINGS, parts, surrounded};
use crate::support::scanner::Scanner;

#[test]
fn every_shape_is_found_in_every_encoding() {
    for shape in SHAPES {
        let canary = Canary::shaped(shape, 7);
        let scanner = Scanner::new([&canary]);
        for (name, encode) in ENCODINGS {
            let leaks = scanner.scan("log", &surrounded(&encode(&canary.value)));
            assert!(leaks.iter().any(|leak| leak.canary == canary.name), "{shape:?} as {name} was not found");
        }
    }
}

#[test]
fn any_part_of_eight_bytes_is_found_in_every_encoding() {
    for shape in SHAPES {
        let canary = Canary::shaped(shape, 8);
        let scanner = Scanner::new([&canary]);
        let core = canary.cores[0].clone();
        let text = &canary.value[core];
        for part in parts(text) {
            for (name, encode) in ENCODINGS {
                let leaks = scanner.scan("log", &surrounded(&encode(part)));
                assert!(!leaks.is_empty(), "a part of {shape:?} as {name} was not found");
            }
        }
    }
}

#[test]
fn innocent_outputs_are_not_found() {
    let canaries: Vec<Canary> = SHAPES.iter().map(|shape| Canary::shaped(*shape, 9)).collect();
    let scanner = Scanner::new(&canaries);
    let others: Vec<Canary> = SHAPES.iter().map(|shape| Canary::shaped(*shape, 10)).collect();
    for other in &others {
        for (name, encode) in ENCODINGS {
            let leaks = scanner.scan("log", &surrounded(&encode(&other.value)));
            assert!(leaks.is_empty(), "{} as {name} was taken for a canary: {leaks:?}", other.name);
        }
    }
}

#[test]
fn seven_bytes_and_public_prefixes_are_no_leak() {
    let canary = Canary::after("secret", "dinie_cs_live_", "dinie_cs_live_Zq81hT0bWvX2");
    let scanner = Scanner::new([&canary]);
    assert!(scanner.scan("log", b"the pattern is dinie_cs_live_").is_empty());
    assert!(scanner.scan("log", b"Zq81hT0 and 1hT0bWv").is_empty());
    assert_eq!(scanner.scan("log", b"it was Zq81hT0b")[0].canary, "secret");
    let pem = Canary::shaped(Shape::Pem, 3);
    assert!(Scanner::new([&pem]).scan("log", b"-----BEGIN PRIVATE KEY-----\n").is_empty());
}

#[test]
fn megabytes_are_scanned_for_huge_canaries() {
    let huge = Canary::shaped(Shape::Huge, 4);
    let scanner = Scanner::new([&huge]);
    let mut noise = Canary::shaped(Shape::Huge, 5).value.repeat(8).into_bytes();
    assert!(scanner.scan("disk", &noise).is_empty());
    noise.extend_from_slice(&huge.value.as_bytes()[60_000..60_008]);
    assert_eq!(scanner.scan("disk", &noise).len(), 1);
}
