//! `hash-384`: text to a vector of 384 values without any model.
//!
//! 1. The text is lower-cased and split into words (runs of letters and digits).
//! 2. Each word gives features: the word itself, and its character n-grams of 2 to 4 characters with
//!    marks at both ends (`<word>`), which bring related forms together.
//! 3. Each feature is hashed to one of 384 places and a sign; equal features add up, damped by a
//!    square root, with the weight of their kind. Very common English words count little.
//! 4. The sum is scaled to length 1. A text without words is the zero vector.
//!
//! Everything is integer arithmetic, square roots and sums in a fixed order, so that the same text
//! gives the same bits on every machine. The rules are part of the name: a store that says
//! `hash-384` was filled by exactly these; another rule needs another name.
//!
//! It finds texts that share words or parts of words. It knows nothing of meaning: use vectors of a
//! real model where there is one.

use std::collections::BTreeMap;

/// The name that stands as the collection's model.
pub const MODEL: &str = "hash-384";
/// Values in a vector.
pub const DIM: usize = 384;

/// Kinds of features, as hashed, and their weights. Chosen by evidence recall@10 on LoCoMo, turns
/// as `speaker: text`: 0.479; with n-grams of 3 to 5 characters 0.465, with weight 0.4 for them
/// 0.452, with pairs of words as well 0.451. Pairs cost more in collisions than they bring.
const WORD: u8 = 1;
const GRAM: u8 = 2;
const WORD_WEIGHT: f32 = 1.0;
const COMMON_WEIGHT: f32 = 0.1;
const GRAM_WEIGHT: f32 = 0.8;

/// Shortest and longest n-grams, in characters with the end marks.
const GRAM_CHARS_MIN: usize = 2;
const GRAM_CHARS_MAX: usize = 4;
/// Characters of a word that give n-grams; longer words are rare and cost square time.
const WORD_CHARS_MAX: usize = 64;

/// Words that say little about what a text is about.
const COMMON: &[&str] = &[
    "a", "about", "all", "am", "an", "and", "are", "as", "at", "be", "been", "but", "by", "can",
    "d", "did", "do", "does", "for", "from", "get", "had", "has", "have", "he", "her", "him",
    "his", "how", "i", "if", "in", "is", "it", "its", "just", "like", "ll", "m", "me", "my", "no",
    "not", "of", "on", "or", "our", "re", "s", "she", "so", "t", "that", "the", "their", "them",
    "then", "there", "they", "this", "to", "too", "up", "us", "ve", "was", "we", "were", "what",
    "when", "where", "which", "who", "why", "will", "with", "would", "you", "your",
];

/// The vector of a text: length 1, or all zeros when it has no letter and no digit.
///
/// ```
/// let a = pmll_cli::embed::embed("Caroline plays the violin");
/// let b = pmll_cli::embed::embed("who plays violins?");
/// let c = pmll_cli::embed::embed("the weather in Lisbon");
/// let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(a, b)| a * b).sum::<f32>();
/// assert!(dot(&a, &b) > dot(&a, &c));
/// ```
#[must_use]
pub fn embed(text: &str) -> Vec<f32> {
    // (kind, hash) -> (times seen, weight); ordered, so that sums are the same everywhere.
    let mut features: BTreeMap<u64, (u32, f32)> = BTreeMap::new();
    let mut add = |kind: u8, part: &str, weight: f32| {
        let seen = features.entry(hash(kind, part)).or_insert((0, weight));
        seen.0 = seen.0.saturating_add(1);
    };

    let text = text.to_lowercase();
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()) {
        let common = COMMON.binary_search(&word).is_ok();
        add(WORD, word, if common { COMMON_WEIGHT } else { WORD_WEIGHT });
        if !common {
            let marked: Vec<char> = std::iter::once('<')
                .chain(word.chars().take(WORD_CHARS_MAX))
                .chain(std::iter::once('>'))
                .collect();
            for n in GRAM_CHARS_MIN..=GRAM_CHARS_MAX {
                for gram in marked.windows(n) {
                    let gram: String = gram.iter().collect();
                    add(GRAM, &gram, GRAM_WEIGHT);
                }
            }
        }
    }

    let mut vector = vec![0.0f32; DIM];
    for (hash, (times, weight)) in features {
        let sign = if hash >> 63 == 0 { 1.0 } else { -1.0 };
        if let Some(place) = vector.get_mut((hash % DIM as u64) as usize) {
            *place += sign * weight * (times as f32).sqrt();
        }
    }
    let norm = vector.iter().map(|v| v * v).sum::<f32>().sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|v| *v /= norm);
    }
    vector
}

/// FNV-1a over the kind and the text, then mixed so that every bit of the result depends on every
/// bit of the input.
fn hash(kind: u8, part: &str) -> u64 {
    let mut h = 0xcbf2_9ce4_8422_2325_u64;
    let mut eat = |byte: u8| {
        h ^= u64::from(byte);
        h = h.wrapping_mul(0x0000_0100_0000_01b3);
    };
    eat(kind);
    part.bytes().for_each(&mut eat);
    h ^= h >> 33;
    h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^= h >> 33;
    h = h.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(x, y)| x * y).sum()
    }

    #[test]
    fn common_words_are_sorted() {
        assert!(COMMON.is_sorted(), "binary search needs it");
    }

    #[test]
    fn same_text_same_bits() {
        let text = "Caroline plays the violin, \u{e9}t\u{e9} 2023 \u{65e5}\u{672c}";
        let bits = |v: Vec<f32>| v.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(embed(text)), bits(embed(text)));
        assert_eq!(embed("Violin"), embed("violin"));
        assert_eq!(embed("violin!"), embed("  violin"));
    }

    #[test]
    fn the_rules_are_part_of_the_name() {
        // A change of these figures makes vectors that do not fit those of existing stores.
        let text = "Caroline plays the violin since 2019; so does her sister";
        let sum = embed(text).iter().fold(0u64, |sum, value| {
            (sum ^ u64::from(value.to_bits())).wrapping_mul(0x0000_0100_0000_01b3)
        });
        assert_eq!(sum, 0x6268_ec36_2db3_13e5, "{sum:#x}");
    }

    #[test]
    fn length_one_or_zero() {
        for text in ["a", "hello world", "x\u{301}", &"long ".repeat(2000), &"w".repeat(100_000)] {
            let v = embed(text);
            assert_eq!(v.len(), DIM);
            assert!((dot(&v, &v) - 1.0).abs() < 1e-5, "{text:.10}");
        }
        for text in ["", "  ", "?!", "\u{1f600}"] {
            assert!(embed(text).iter().all(|v| *v == 0.0), "{text:?}");
        }
    }

    #[test]
    fn related_texts_score_higher() {
        let query = embed("When did Melanie paint a sunrise?");
        let near = embed("Melanie: I painted that lake sunrise last year!");
        let far = embed("Caroline: the support group was so powerful.");
        assert!(dot(&query, &near) > dot(&query, &far) + 0.2);
    }
}
