//! Transactions: half messages, how they end, and what cannot end.

use orbitmq::remoting::code::request::{END_TRANSACTION, RESUME_CHECK_HALF_MESSAGE};

use super::{create, filled, pull, send};
use crate::script::{Case, case};

const HALF: &str = "b=Bank&i=TRAN_MSG\x01true\x02PGROUP\x01tellers\x02UNIQ_KEY\
                    \x017F0000010001000000000000CCCC0001\x02KEYS\x01t1\x02&f=4&a=tellers";
const END: &str = "topic=Bank&producerGroup=tellers&tranStateTableOffset=${state}\
                   &commitLogOffset=${half}&commitOrRollback=8&fromTransactionCheck=false\
                   &msgId=${key}&transactionId=${key}";

const fn end(name: &'static str, fields: &'static str) -> Case {
    case(name, END_TRANSACTION, fields).over(END)
}

/// A half message, and where it lies.
const fn half(name: &'static str) -> Case {
    send(name, HALF).bind(&[
        ("state", "ext.queueOffset"),
        ("half", "ext.msgId.offset"),
        ("key", "ext.transactionId"),
        ("opened", "ext.msgId"),
    ])
}

pub const CASES: &[Case] = &[
    create(
        "create for transactions",
        "topic=Bank&readQueueNums=1&writeQueueNums=1",
    ),
    half("half"),
    pull("half is not seen", "topic=Bank"),
    end("end it as unknown", "commitOrRollback=0").silent(),
    end("end it in another group", "producerGroup=thieves"),
    end("end another place", "tranStateTableOffset=999"),
    end("end beyond the log", "commitLogOffset=900000000000"),
    end("end it in a strange way", "commitOrRollback=5").silent(),
    end("commit it", ""),
    filled(
        "committed transaction",
        "topic=Bank&queueId=0",
        "ext.offset=1",
    ),
    pull("committed is seen", "topic=Bank"),
    end("commit it twice", ""),
    end("roll it back after all", "commitOrRollback=12"),
    half("half to roll back"),
    end("roll it back", "commitOrRollback=12"),
    end("commit it after all", ""),
    half("half to be checked"),
    end(
        "end a check as unknown",
        "fromTransactionCheck=true&commitOrRollback=0",
    )
    .silent(),
    end(
        "roll back after a check",
        "fromTransactionCheck=true&commitOrRollback=12",
    ),
    half("half left open"),
    end("end without a group", "!producerGroup"),
    end("end without a place", "!commitLogOffset"),
    end("end without a state", "!tranStateTableOffset"),
    end("end without a way", "!commitOrRollback"),
    end("end without an id", "!msgId&!transactionId"),
    end("commit it one-way", "").oneway(),
    send("half of a missing group", "b=Bank&i=TRAN_MSG\x01true\x02"),
    send("half that is none", "b=Ordered&e=1&i=TRAN_MSG\x01false\x02"),
    send(
        "half beyond the queues",
        "b=Bank&e=7&i=TRAN_MSG\x01true\x02PGROUP\x01tellers\x02",
    ),
    case(
        "resume a check",
        RESUME_CHECK_HALF_MESSAGE,
        "topic=Bank&msgId=${opened}",
    )
    .over("topic=Bank"),
    case(
        "resume a check of nothing",
        RESUME_CHECK_HALF_MESSAGE,
        "topic=Bank",
    ),
    case(
        "resume a check of a bad id",
        RESUME_CHECK_HALF_MESSAGE,
        "topic=Bank&msgId=xyz",
    ),
    send(
        "half with a delay",
        "b=Bank&i=TRAN_MSG\x01true\x02PGROUP\x01tellers\x02DELAY\x0118\x02",
    ),
    send(
        "half with a retry and a delay",
        "b=Bank&j=1&i=TRAN_MSG\x01true\x02DELAY\x0118\x02",
    ),
    pull("what transactions left", "topic=Bank"),
];
