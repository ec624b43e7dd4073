//! Cases of the whole: texts in, one line of outcome out.

use super::*;

fn host() -> Host {
    Host {
        name: "mq1".to_owned(),
        home: "/home/a".to_owned(),
        cores: vec![0, 1, 2, 3],
        address: Some([10, 0, 0, 7].into()),
    }
}

fn flag(text: &str) -> Flag {
    let (key, value) = text.split_once('=').unwrap();
    Flag {
        flag: "--set",
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

fn sources(role: Role, file: &str, text: &str, environment: &[&str], flags: &[&str]) -> Sources {
    let pair = |text: &&str| {
        let (name, value) = text.split_once('=').unwrap();
        (name.to_owned(), value.to_owned())
    };
    Sources {
        file: Some((file.to_owned(), text.to_owned())),
        environment: environment.iter().map(pair).collect(),
        flags: flags.iter().map(|text| flag(text)).collect(),
        ..Sources::new(role, host())
    }
}

fn load(flags: &[&str]) -> Result<Config, ConfigError> {
    Config::load(&sources(Role::Standalone, "b.toml", "", &[], flags))
}

/// Loads a standalone configuration from one file and compares the error.
fn check_error(file: &str, text: &str, expected: &str) {
    let error = Config::load(&sources(Role::Standalone, file, text, &[], &[])).unwrap_err();
    let shown = error.to_string();
    assert!(shown.starts_with(expected), "{text:?} gave {shown}");
}

/// The text a key has after the sources are read.
fn check_value(file: &str, environment: &[&str], flags: &[&str], key: &str, expected: &str) {
    let config = Config::load(&sources(
        Role::Standalone,
        "b.conf",
        file,
        environment,
        flags,
    ))
    .unwrap();
    assert_eq!(
        config.settings.text(key),
        Some(expected),
        "{file:?} {environment:?} {flags:?}"
    );
}

#[test]
fn defaults_are_rocketmqs_and_the_hosts() {
    let config = load(&[]).unwrap();
    assert_eq!(config.broker_name, "mq1");
    assert_eq!(config.broker_cluster_name, "DefaultCluster");
    assert_eq!(config.listen.to_string(), "127.0.0.1:10911");
    assert_eq!(config.broker_ip1.to_string(), "127.0.0.1");
    assert_eq!(config.namesrv_addr.0, ["127.0.0.1:9876"]);
    assert_eq!(config.store_path_root_dir.to_str(), Some("/home/a/orbitmq"));
    assert_eq!(
        config.kv_config_path.to_str(),
        Some("/home/a/orbitmq/namesrv/kvConfig.json")
    );
    assert_eq!(config.flush_disk_type, FlushDiskType::Async);
    assert_eq!(config.mapped_file_size_commit_log, 1 << 30);
    assert_eq!((config.shards, config.cores.0.len()), (4, 4));
    assert_eq!(config.memory_limit, (256 + 3 * 128) << 20);
    assert!(config.auto_create_topic_enable && config.notices.is_empty());
}

#[test]
fn every_default_has_the_form_of_its_key() {
    for key in KEYS {
        if let Start::Fixed(text) = key.start {
            assert_eq!(
                key.shape.canonical(text).as_deref(),
                Some(text),
                "{}",
                key.name
            );
        }
    }
}

#[test]
fn a_host_name_that_is_no_broker_name_is_not_used() {
    let mut sources = Sources::new(Role::Standalone, host());
    sources.host.name = "müller".to_owned();
    assert_eq!(Config::load(&sources).unwrap().broker_name, "broker-a");
}

#[test]
fn later_sources_win() {
    let file = "fileReservedTime=1";
    check_value("", &[], &[], "fileReservedTime", "72");
    check_value(file, &[], &[], "fileReservedTime", "1");
    check_value(
        file,
        &["ORBITMQ_FILE_RESERVED_TIME=2"],
        &[],
        "fileReservedTime",
        "2",
    );
    check_value(
        file,
        &["ORBITMQ_fileReservedTime=2"],
        &[],
        "fileReservedTime",
        "2",
    );
    check_value(
        file,
        &["ORBITMQ_FILERESERVEDTIME=2"],
        &["fileReservedTime=3", "fileReservedTime=4"],
        "fileReservedTime",
        "4",
    );
}

#[test]
fn properties_are_mapped() {
    check_value("listenPort=10921", &[], &[], "listen", "127.0.0.1:10921");
    check_value(
        "listenPort=1\nbindAddress=127.0.0.2",
        &[],
        &[],
        "listen",
        "127.0.0.2:1",
    );
    check_value(
        "mapedFileSizeCommitLog=4194304\nmaxMessageSize=1024",
        &[],
        &[],
        "mappedFileSizeCommitLog",
        "4194304",
    );
    check_value(
        "brokerRole = ASYNC_MASTER\nbrokerId=0",
        &[],
        &[],
        "brokerId",
        "0",
    );
    check_value(
        "autoCreateTopicEnable=True",
        &[],
        &[],
        "autoCreateTopicEnable",
        "true",
    );
    let sources = sources(Role::Namesrv, "n.conf", "listenPort=9877", &[], &[]);
    assert_eq!(
        Config::load(&sources).unwrap().namesrv_listen.to_string(),
        "127.0.0.1:9877"
    );
}

#[test]
fn the_home_directory_is_expanded() {
    let file = "storePathRootDir=~/mq";
    check_value(file, &[], &[], "storePathRootDir", "/home/a/mq");
    check_value(
        file,
        &[],
        &[],
        "kvConfigPath",
        "/home/a/mq/namesrv/kvConfig.json",
    );
    check_value("kvConfigPath=~/kv", &[], &[], "kvConfigPath", "/home/a/kv");
}

#[test]
fn keys_without_meaning_here_are_noticed_once_each() {
    let text = "a=b\nsendMessageThreadPoolNums=16\ndeleteWhen=04\n";
    let config = Config::load(&sources(Role::Standalone, "b.conf", &text[4..], &[], &[])).unwrap();
    let notices: Vec<String> = config.notices.iter().map(Notice::to_string).collect();
    assert_eq!(notices.len(), 2);
    assert!(
        notices[0].starts_with("b.conf:1: sendMessageThreadPoolNums is not needed because "),
        "{notices:?}"
    );
    assert!(
        notices[1].starts_with("b.conf:2: deleteWhen is not needed because "),
        "{notices:?}"
    );
}

#[test]
fn errors_name_place_key_and_expectation() {
    check_error(
        "b.toml",
        "\nflushDiskTyp = 1",
        "b.toml:2: unknown key flushDiskTyp; the nearest \
        known key is flushDiskType",
    );
    check_error(
        "b.toml",
        "zzz = 1",
        "b.toml:1: unknown key zzz; `orbitmq config explain`",
    );
    check_error(
        "b.toml",
        "flushDiskType = \"SYNC\"",
        "b.toml:1: flushDiskType: expected one of ASYNC_FLUSH, SYNC_FLUSH, found `SYNC`",
    );
    check_error(
        "b.conf",
        "fileReservedTime=soon",
        "b.conf:1: fileReservedTime: expected a number from 1 to 87600 (hours), found `soon`",
    );
    check_error(
        "b.conf",
        "#\n\nfileReservedTime=0",
        "b.conf:3: fileReservedTime: expected a number from 1 to 87600 (hours), found `0`",
    );
    check_error(
        "b.toml",
        "mappedFileSizeCommitLog = \"1000000\"",
        "b.toml:1: mappedFileSizeCommitLog: expected a size from 4MiB to 4GiB, a multiple of 1MiB",
    );
    check_error(
        "b.toml",
        "autoCreateTopicEnable = 1",
        "b.toml:1: autoCreateTopicEnable: expected true or false, found `1`",
    );
    check_error(
        "b.toml",
        "listenPort = 65536",
        "b.toml:1: listenPort: expected a port",
    );
    check_error(
        "b.toml",
        "bindAddress = \"lo\"",
        "b.toml:1: bindAddress: expected an IP address",
    );
    check_error(
        "b.conf",
        "brokerRole=SLAVE",
        "b.conf:1: brokerRole=SLAVE: replicas are not there yet; remove the key",
    );
    check_error(
        "b.conf",
        "aclEnable=true",
        "b.conf:1: aclEnable=true: users and permissions",
    );
    check_error(
        "b.conf",
        "brokerId=1",
        "b.conf:1: brokerId: expected 0, found `1`",
    );
}

#[test]
fn errors_name_variables_and_flags() {
    let error = |environment: &[&str], flags: &[&str]| {
        let sources = sources(Role::Standalone, "b.toml", "", environment, flags);
        Config::load(&sources).unwrap_err().to_string()
    };
    let text = error(&["ORBITMQ_SHARDS=0"], &[]);
    assert!(
        text.starts_with("environment variable ORBITMQ_SHARDS: shards: expected"),
        "{text}"
    );
    let text = error(&["ORBITMQ_SHARD=1"], &[]);
    assert!(
        text.ends_with("unknown key SHARD; the nearest known key is shards"),
        "{text}"
    );
    let text = error(&[], &["shards=65"]);
    assert!(
        text.starts_with("--set: shards: expected a number from 1 to 64"),
        "{text}"
    );
}

#[test]
fn variables_of_others_are_passed_over() {
    let environment = [
        "PATH=/bin",
        "ORBITMQ_SERVICE_HOST=10.0.0.1",
        "ORBITMQ_PORT_10911_TCP=x",
    ];
    check_value("", &environment, &[], "brokerName", "mq1");
}

#[test]
fn open_ports_need_a_word() {
    let error = load(&["listen=0.0.0.0:10911"]).unwrap_err().to_string();
    assert!(
        error.starts_with("--set: listen: 0.0.0.0:10911 can be reached"),
        "{error}"
    );
    assert!(error.contains("--insecure"), "{error}");
    let error = load(&["namesrvListen=10.0.0.7:9876"])
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("--set: namesrvListen: 10.0.0.7:9876"),
        "{error}"
    );
    let config = load(&["listen=0.0.0.0:10911", "insecure=true"]).unwrap();
    assert_eq!(config.broker_ip1.to_string(), "10.0.0.7");
    let config = load(&["listen=10.0.0.9:10911", "insecure=true"]).unwrap();
    assert_eq!(config.broker_ip1.to_string(), "10.0.0.9");
}

#[test]
fn values_must_go_together() {
    let check = |flags: &[&str], expected: &str| {
        let error = load(flags).unwrap_err().to_string();
        assert!(error.contains(expected), "{flags:?} gave {error}");
    };
    check(
        &["mappedFileSizeCommitLog=4MiB"],
        "cannot hold a message of maxMessageSize=4194304",
    );
    check(
        &["listen=127.0.0.1:1", "namesrvListen=127.0.0.1:1"],
        "cannot both listen on",
    );
    check(&["brokerIP1=0.0.0.0"], "brokerIP1: no address of this host");
    check(
        &["cores=9"],
        "`9` is more than this process may use, which is 0,1,2,3",
    );
    check(&["cores=2-4"], "`2-4` is more than this process may use");
    let mut alone = Sources::new(Role::Broker, host());
    let error = Config::load(&alone).unwrap_err().to_string();
    assert!(
        error.contains("namesrvAddr: a broker needs a name server"),
        "{error}"
    );
    alone
        .environment
        .push(("NAMESRV_ADDR".to_owned(), "a:9876;b:9876".to_owned()));
    assert_eq!(
        Config::load(&alone).unwrap().namesrv_addr.0,
        ["a:9876", "b:9876"]
    );
}

#[test]
fn cores_are_counted_or_listed() {
    let check = |cores: &str, list: &[usize], shards: u64| {
        let config = load(&[&format!("cores={cores}")]).unwrap();
        assert_eq!(
            (config.cores.0.as_slice(), config.shards),
            (list, shards),
            "{cores}"
        );
    };
    check("2", &[0, 1], 2);
    check("3-3", &[3], 1);
    check("0,2-3", &[0, 2, 3], 3);
    // The only core of a machine, or of a container, is mostly the first one.
    let alone = Host {
        cores: vec![0],
        ..host()
    };
    let config = Config::load(&Sources::new(Role::Standalone, alone)).unwrap();
    assert_eq!(config.cores.0, [0]);
    let config = load(&["cores=1", "shards=16"]).unwrap();
    assert_eq!(
        (config.shards, config.memory_limit),
        (16, (256 + 15 * 128) << 20)
    );
}

#[test]
fn the_properties_text_has_what_mqadmin_reads() {
    let text = load(&["listen=127.0.0.1:10921"]).unwrap().to_properties();
    for line in [
        "brokerName=mq1",
        "brokerClusterName=DefaultCluster",
        "brokerId=0",
        "brokerIP1=127.0.0.1",
        "listenPort=10921",
        "brokerRole=ASYNC_MASTER",
        "flushDiskType=ASYNC_FLUSH",
        "fileReservedTime=72",
        "deleteWhen=04",
        "autoCreateTopicEnable=true",
        "autoCreateSubscriptionGroup=true",
        "storePathRootDir=/home/a/orbitmq",
        "storePathCommitLog=/home/a/orbitmq",
        "namesrvAddr=127.0.0.1:9876",
        "traceTopicEnable=false",
        "defaultTopicQueueNums=8",
        "diskSpaceCleanForciblyRatio=85",
        "maxMessageSize=4194304",
        "enableControllerMode=false",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
    let namesrv = load(&[]).unwrap().to_namesrv_properties();
    assert!(namesrv.contains("\nlistenPort=9876\n"), "{namesrv}");
    // What we write we also read: the text is a valid configuration of the same broker.
    let again = Config::load(&sources(Role::Standalone, "b.conf", &text, &[], &[])).unwrap();
    assert_eq!(again.to_properties(), text);
}

#[test]
fn the_sample_files_are_valid() {
    let files = [
        (
            Role::Standalone,
            "conf/standalone.toml",
            include_str!("../../conf/standalone.toml"),
        ),
        (
            Role::Broker,
            "conf/broker.toml",
            include_str!("../../conf/broker.toml"),
        ),
        (
            Role::Broker,
            "conf/broker.conf",
            include_str!("../../conf/broker.conf"),
        ),
        (
            Role::Namesrv,
            "conf/namesrv.toml",
            include_str!("../../conf/namesrv.toml"),
        ),
    ];
    for (role, file, text) in files {
        let config = Config::load(&sources(role, file, text, &[], &[]));
        assert!(config.is_ok(), "{file}: {config:?}");
        // A commented-out line must be as right as a live one.
        let live: String = text
            .lines()
            .map(|line| line.strip_prefix("#= ").unwrap_or(line).to_owned() + "\n")
            .collect();
        let config = Config::load(&sources(role, file, &live, &[], &["insecure=true"]));
        assert!(config.is_ok(), "{file} with every line live: {config:?}");
    }
}
