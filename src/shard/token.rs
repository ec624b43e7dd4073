//! Names for what an executor has asked its ring for, packed into 64 bits.
//!
//! | bits | field |
//! |---|---|
//! | 56-63 | kind |
//! | 48-55 | fleet: 0 broker, 1 name server |
//! | 32-47 | machine of that fleet on this executor |
//! | 0-31 | slot: connection, door or disk order |

/// Where a machine lives on its executor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    pub fleet: u8,
    pub machine: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Bell,
    Door,
    /// A connection can be read.
    Input,
    /// A connection takes output again.
    Output,
    Disk,
}

const KINDS: [Kind; 5] = [
    Kind::Bell,
    Kind::Door,
    Kind::Input,
    Kind::Output,
    Kind::Disk,
];

pub fn pack(kind: Kind, place: Place, slot: u32) -> u64 {
    (kind as u64) << 56
        | u64::from(place.fleet) << 48
        | u64::from(place.machine) << 32
        | u64::from(slot)
}

pub fn unpack(token: u64) -> (Kind, Place, u32) {
    let place = Place {
        fleet: (token >> 48) as u8,
        machine: (token >> 32) as u16,
    };
    (KINDS[(token >> 56) as usize], place, token as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back() {
        for kind in KINDS {
            let place = Place {
                fleet: 1,
                machine: 255,
            };
            assert_eq!(unpack(pack(kind, place, u32::MAX)), (kind, place, u32::MAX));
        }
    }
}
