//! TCP options as bytes, in the order in which a script has them.

use super::ast::Opt;

impl Opt {
    pub fn wire_len(&self) -> usize {
        match self {
            Opt::Nop | Opt::Eol => 1,
            Opt::Mss(_) => 4,
            Opt::WindowScale(_) => 3,
            Opt::SackPermitted => 2,
            Opt::Sack(blocks) => 2 + 8 * blocks.len(),
            Opt::Timestamps { .. } => 10,
            Opt::Raw(bytes) => bytes.len(),
        }
    }
}

pub fn encode(options: &[Opt]) -> Vec<u8> {
    let mut out = Vec::new();
    for option in options {
        match option {
            Opt::Nop => out.push(1),
            Opt::Eol => out.push(0),
            Opt::Mss(mss) => {
                out.extend([2, 4]);
                out.extend(mss.to_be_bytes());
            }
            Opt::WindowScale(shift) => out.extend([3, 3, *shift]),
            Opt::SackPermitted => out.extend([4, 2]),
            Opt::Sack(blocks) => {
                out.extend([5, option.wire_len() as u8]);
                blocks.iter().for_each(|(left, right)| {
                    out.extend(left.to_be_bytes());
                    out.extend(right.to_be_bytes());
                });
            }
            Opt::Timestamps { val, ecr } => {
                out.extend([8, 10]);
                out.extend(val.unwrap_or_default().to_be_bytes());
                out.extend(ecr.unwrap_or_default().to_be_bytes());
            }
            Opt::Raw(bytes) => out.extend(bytes),
        }
    }
    out
}

/// What cannot be read as an option we know is [`Opt::Raw`].
pub fn decode(mut rest: &[u8]) -> Vec<Opt> {
    let word = |bytes: &[u8], at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes);
    let mut options = Vec::new();
    while let Some((&kind, tail)) = rest.split_first() {
        if kind <= 1 {
            options.push(if kind == 0 { Opt::Eol } else { Opt::Nop });
            rest = tail;
            continue;
        }
        let len = usize::from(tail.first().copied().unwrap_or(0));
        let Some(whole) = rest.get(..len).filter(|_| len >= 2) else {
            options.push(Opt::Raw(rest.to_vec()));
            break;
        };
        let body = &whole[2..];
        options.push(match (kind, body.len()) {
            (2, 2) => Opt::Mss(u16::from_be_bytes([body[0], body[1]])),
            (3, 1) => Opt::WindowScale(body[0]),
            (4, 0) => Opt::SackPermitted,
            (5, n) if n % 8 == 0 => Opt::Sack((0..n / 8).map(|i| (word(body, 8 * i), word(body, 8 * i + 4))).collect()),
            (8, 8) => Opt::Timestamps { val: Some(word(body, 0)), ecr: Some(word(body, 4)) },
            _ => Opt::Raw(whole.to_vec()),
        });
        rest = &rest[len..];
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_survive_the_wire() {
        let options = vec![
            Opt::Mss(1460),
            Opt::SackPermitted,
            Opt::Nop,
            Opt::WindowScale(7),
            Opt::Timestamps { val: Some(1), ecr: Some(2) },
            Opt::Raw(vec![254, 3, 9]),
            Opt::Sack(vec![(1, 2), (3, 4)]),
            Opt::Eol,
        ];
        let bytes = encode(&options);
        assert_eq!(bytes.len(), options.iter().map(Opt::wire_len).sum::<usize>());
        assert_eq!(decode(&bytes), options);
        for len in 0..bytes.len() {
            decode(&bytes[..len]);
        }
    }
}
