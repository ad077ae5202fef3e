//! Boards agree to start, or all of them learn why not.

use armlet::boards::{Comm, CommError};

use crate::card::{Card, compare};
use crate::patience::board;

/// Bytes of a text that a board may have to say.
const LONGEST: u32 = 1 << 20;

/// Shows the others this board's card, or what keeps it from starting, and gives the cards of all.
///
/// # Errors
/// Why the boards cannot start, the same on all of them; it is one board's task to say it.
pub fn agree(boards: &dyn Comm, own: Result<Card, String>) -> Result<Vec<Card>, String> {
    let cards = met(boards, own)?;
    compare(&cards)?;
    Ok(cards)
}

/// Shows the others a text of this board, or what keeps it from starting, and gives the texts of all. A board may be at
/// [`agree`] that cannot start.
///
/// # Errors
/// As there.
pub fn tell(boards: &dyn Comm, own: Result<String, String>) -> Result<Vec<String>, String> {
    let (text, own) = match own {
        Ok(text) => (text, Ok(Card { host: crate::machine::host(), ..Card::default() })),
        Err(why) => (String::new(), Err(why)),
    };
    met(boards, own)?;
    gather_texts(boards, &text)
}

/// Compares what this board was asked for with what the others were: each has a name.
///
/// # Errors
/// What differs, the same on all boards.
pub fn alike(boards: &dyn Comm, own: &[(&str, String)]) -> Result<(), String> {
    let cards = met(boards, Ok(Card { host: crate::machine::host(), ..Card::default() }))?;
    let texts = gather_texts(boards, &own.iter().map(|(_, asked)| asked.as_str()).collect::<Vec<_>>().join("\n"))?;
    let names: Vec<String> = cards.into_iter().map(|card| card.host).collect();
    for (rank, text) in texts.iter().enumerate() {
        let asked = own.iter().zip(text.lines().zip(texts[0].lines()));
        if let Some(((item, _), (own, first))) = asked.into_iter().find(|(_, (own, first))| own != first) {
            return Err(format!("{}: {item} is {own}, and on {} {first}", board(rank, &names), board(0, &names)));
        }
    }
    Ok(())
}

/// The cards of all, if all can start.
fn met(boards: &dyn Comm, own: Result<Card, String>) -> Result<Vec<Card>, String> {
    let why = own.as_ref().err().cloned();
    let own = own.unwrap_or_else(|_| Card { host: crate::machine::host(), ..Card::default() });
    let (cards, can_start) = gather(boards, &own, why.is_none())?;
    if let Some(rank) = can_start.iter().position(|can_start| !can_start) {
        let reasons = gather_texts(boards, &why.unwrap_or_default())?;
        let names: Vec<String> = cards.iter().map(|card| card.host.clone()).collect();
        return Err(format!("{}: {}", board(rank, &names), reasons[rank]));
    }
    Ok(cards)
}

/// The cards of all, and whether they can start.
fn gather(boards: &dyn Comm, own: &Card, can_start: bool) -> Result<(Vec<Card>, Vec<bool>), String> {
    let mut own = own.encode();
    own[Card::BYTES - 1] = u8::from(can_start);
    let all = gather_each(boards, own).map_err(|e| e.to_string())?;
    let read = |(rank, bytes)| Card::decode(bytes).map_err(|why| format!("board {rank} {why}"));
    let cards = all.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    Ok((cards, all.iter().map(|bytes| bytes[Card::BYTES - 1] == 1).collect()))
}

/// So many bytes of each board.
pub(crate) fn gather_each<const N: usize>(boards: &dyn Comm, own: [u8; N]) -> Result<Vec<[u8; N]>, CommError> {
    let mut all = vec![[0; N]; boards.size()];
    all[boards.rank()] = own;
    let ends: Vec<usize> = (1..=boards.size()).map(|i| i * N).collect();
    boards.all_gather(all.as_flattened_mut(), &ends)?;
    Ok(all)
}

/// A text of each board.
///
/// # Errors
/// Those of the exchange.
pub fn gather_texts(boards: &dyn Comm, own: &str) -> Result<Vec<String>, String> {
    let (rank, size) = (boards.rank(), boards.size());
    let lengths = gather_each(boards, (own.len() as u32).to_le_bytes()).map_err(|e| e.to_string())?;
    if let Some(rank) = lengths.iter().position(|length| u32::from_le_bytes(*length) > LONGEST) {
        let length = u32::from_le_bytes(lengths[rank]);
        return Err(format!("board {rank} has a text of {length} bytes to say, and {LONGEST} are the most"));
    }
    let ends: Vec<usize> = lengths
        .iter()
        .scan(0, |end, length| {
            *end += u32::from_le_bytes(*length) as usize;
            Some(*end)
        })
        .collect();
    let mut all = vec![0; ends[size - 1]];
    all[ends[rank] - own.len()..ends[rank]].copy_from_slice(own.as_bytes());
    boards.all_gather(&mut all, &ends).map_err(|e| e.to_string())?;
    let starts = std::iter::once(0).chain(ends.iter().copied());
    Ok(starts.zip(&ends).map(|(start, end)| String::from_utf8_lossy(&all[start..*end]).into_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boards::on_boards;

    fn card(rank: usize) -> Card {
        Card { host: format!("b{rank}"), any_backend: true, ..Card::default() }
    }

    #[test]
    fn boards_that_are_alike_know_each_other() {
        for size in 1..=4 {
            for cards in on_boards(size, |board| agree(&board, Ok(card(board.rank())))) {
                let expected: Vec<String> = (0..size).map(|rank| format!("b{rank}")).collect();
                assert_eq!(cards.unwrap().iter().map(|card| card.host.as_str()).collect::<Vec<_>>(), expected);
            }
        }
    }

    /// They may be started with different command lines.
    #[test]
    fn what_boards_are_asked_for_is_compared() {
        let asked = |split: &str, shares: &str| [("--split", split.to_string()), ("--shares", shares.to_string())];
        for why in on_boards(3, |board| {
            let shares = if board.rank() == 2 { "auto" } else { "3,3,2" };
            alike(&board, &asked("rows", "even")).unwrap();
            alike(&board, &asked("rows", shares)).unwrap_err()
        }) {
            let host = crate::machine::host();
            assert_eq!(why, format!("board {host} (rank 2): --shares is auto, and on board {host} (rank 0) 3,3,2"));
        }
    }

    /// One board's trouble is told by all, and so is a difference.
    #[test]
    fn the_reason_is_the_same_everywhere() {
        let own = |rank| match rank {
            1 => Ok(Card { model: 5, ..card(1) }),
            rank => Ok(card(rank)),
        };
        for why in on_boards(3, |board| agree(&board, own(board.rank())).unwrap_err()) {
            assert_eq!(
                why,
                "board b1 (rank 1): the model is 0000000000000005, and on board b0 (rank 0) 0000000000000000"
            );
        }
        let own = |rank| if rank == 2 { Err("model.gguf: no such file".into()) } else { own(rank) };
        for why in on_boards(3, |board| agree(&board, own(board.rank())).unwrap_err()) {
            let host = crate::machine::host();
            assert_eq!(why, format!("board {host} (rank 2): model.gguf: no such file"));
        }
        // Even if there is nothing to say.
        for why in on_boards(2, |board| agree(&board, if board.rank() == 1 { Err(String::new()) } else { Ok(card(0)) }))
        {
            assert!(why.unwrap_err().ends_with("(rank 1): "));
        }
    }

    /// Before the cards, and where one board is at its card already because it cannot start.
    #[test]
    fn what_one_board_tells_all_know() {
        let text = |rank: usize| if rank == 0 { "12".to_string() } else { String::new() };
        for all in on_boards(3, |board| tell(&board, Ok(text(board.rank())))) {
            assert_eq!(all.unwrap(), ["12", "", ""]);
        }
        let whys = on_boards(3, |board| match board.rank() {
            0 => tell(&board, Err("tea: it is damaged".into())).unwrap_err(),
            1 => agree(&board, Err("no model".into())).unwrap_err(),
            _ => tell(&board, Ok(String::new())).unwrap_err(),
        });
        assert!(whys.iter().all(|why| why.ends_with("(rank 0): tea: it is damaged")), "{whys:?}");
    }

    #[test]
    fn texts_of_any_length_are_gathered() {
        let texts = |rank: usize| "xä".repeat([3, 0, 1][rank]);
        for all in on_boards(3, |board| gather_texts(&board, &texts(board.rank())).unwrap()) {
            assert_eq!(all, [texts(0), texts(1), texts(2)]);
        }
    }
}
