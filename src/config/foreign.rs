//! RocketMQ's other keys: what becomes of each when a `broker.conf` or `namesrv.conf` has it.
//!
//! Sources: `BrokerConfig`, `BrokerIdentity`, `MessageStoreConfig`, `NettyServerConfig`,
//! `NettyClientConfig`, `NamesrvConfig` and `AuthConfig` of 5.5.0, and a few names of the 4.x
//! sample files. Two rules: a key that only tunes the Java server is accepted and named once in
//! the log; a key that asks for something users rely on, and that we do not have, is an error,
//! because silence would be a promise.

/// What a RocketMQ key that is not in the table means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Foreign {
    /// The host half of a listening address.
    Host,
    /// The port half of a listening address.
    Port,
    /// An older name of a key in the table.
    Renamed(&'static str),
    /// Accepted; the text follows the word "because".
    NotNeeded(&'static str),
    /// Accepted with these values only, which ask for nothing.
    NotYet {
        harmless: &'static [&'static str],
        missing: &'static str,
    },
}

/// Names that set something here.
pub(super) const MAPPED: &[&str] = &["bindAddress", "listenPort", "mapedFileSizeCommitLog"];

/// The meaning of a name, if RocketMQ has it.
pub(super) fn find(name: &str) -> Option<Foreign> {
    match name {
        "bindAddress" => return Some(Foreign::Host),
        "listenPort" => return Some(Foreign::Port),
        "mapedFileSizeCommitLog" => return Some(Foreign::Renamed("mappedFileSizeCommitLog")),
        _ => {}
    }
    let listed = |names: &str| names.split_whitespace().any(|listed| listed == name);
    if let Some((_, harmless, missing)) = NOT_YET.iter().find(|(names, ..)| listed(names)) {
        return Some(Foreign::NotYet { harmless, missing });
    }
    let (reason, _) = NOT_NEEDED.iter().find(|(_, names)| listed(names))?;
    Some(Foreign::NotNeeded(reason))
}

/// Every name [`find`] knows.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let not_yet = NOT_YET
        .iter()
        .flat_map(|(names, ..)| names.split_whitespace());
    let not_needed = NOT_NEEDED
        .iter()
        .flat_map(|(_, names)| names.split_whitespace());
    MAPPED.iter().copied().chain(not_yet).chain(not_needed)
}

/// Names, the values that ask for nothing, and what is missing for all others.
const NOT_YET: &[(&str, &[&str], &str)] = &[
    (
        "aclEnable authenticationEnabled authorizationEnabled migrateAuthFromV1Enabled",
        &["false"],
        "users and permissions are not there yet",
    ),
    (
        "brokerRole",
        &["ASYNC_MASTER"],
        "replicas are not there yet",
    ),
    (
        "totalReplicas inSyncReplicas minInSyncReplicas",
        &["1"],
        "replicas are not there yet",
    ),
    (
        "allAckInSyncStateSet enableSlaveActingMaster enableRemoteEscape supportActingMaster \
         notifyMinBrokerIdChanged lockInStrictMode duplicationEnable",
        &["false"],
        "replicas are not there yet",
    ),
    ("haMasterAddress", &[""], "replicas are not there yet"),
    (
        "enableControllerMode enableControllerInNamesrv enableDLegerCommitLog",
        &["false"],
        "automatic fail-over is not there yet",
    ),
    (
        "filterSupportRetry",
        &["false"],
        "SQL filters are not applied to retries",
    ),
    (
        "fetchNamesrvAddrByAddressServer fetchNameSrvAddrByDnsLookup",
        &["false"],
        "name servers are taken from namesrvAddr only",
    ),
    (
        "metricsExporterType",
        &["DISABLE", "0"],
        "metrics are not there yet",
    ),
    ("messageStorePlugIn", &[""], "there are no store plug-ins"),
    (
        "rejectPullConsumerEnable disableConsumeIfConsumerReadSlowly useStaticSubscription \
         isBrokerContainer isInBrokerContainer readUnCommitted \
         deleteTopicWithBrokerRegistration needWaitForService clusterTest",
        &["false"],
        "this switch is not there",
    ),
    (
        "clusterTopicEnable brokerTopicEnable realTimeNotifyConsumerChange \
         useServerSideResetOffset enableRegisterProducer enableCreateSysGroup \
         validateSystemTopicWhenUpdateTopic enableAllTopicList enableTopicList",
        &["true"],
        "this is always on",
    ),
    (
        "startAcceptSendRequestTimeStamp",
        &["0"],
        "sends are accepted from the start",
    ),
    (
        "msgTraceTopicName",
        &["RMQ_SYS_TRACE_TOPIC"],
        "the trace topic has a fixed name",
    ),
    (
        "maxTopicLength",
        &["127"],
        "topic names have at most 127 characters",
    ),
    (
        "defaultMessageRequestMode",
        &["PULL"],
        "the mode of a group is set by setConsumeMode",
    ),
];

/// Why a key is not needed, and the names this holds for.
const NOT_NEEDED: &[(&str, &str)] = &[
    (
        "users and permissions are not there yet",
        "aclCacheExpiredSecond aclCacheMaxNum aclCacheRefreshSecond authConfigPath \
         authenticationMetadataProvider authenticationProvider authenticationStrategy \
         authenticationWhitelist authorizationMetadataProvider authorizationProvider \
         authorizationStrategy authorizationWhitelist clusterName configName \
         initAuthenticationUser innerClientAuthenticationCredentials \
         statefulAuthenticationCacheExpiredSecond statefulAuthenticationCacheMaxNum \
         statefulAuthorizationCacheExpiredSecond statefulAuthorizationCacheMaxNum \
         userCacheExpiredSecond userCacheMaxNum userCacheRefreshSecond",
    ),
    (
        "requests run to completion on the core that owns their queue; there are no thread \
         pools and no lock to choose",
        "ackMessageThreadPoolNums ackThreadPoolQueueCapacity adminBrokerThreadPoolNums \
         adminBrokerThreadPoolQueueCapacity asyncSendEnable batchDispatchRequestThreadPoolNums \
         clientAsyncSemaphoreValue clientCallbackExecutorThreads \
         clientManagerThreadPoolQueueCapacity clientManageThreadPoolNums \
         clientOnewaySemaphoreValue clientRequestThreadPoolNums \
         clientRequestThreadPoolQueueCapacity clientWorkerThreads compactionThreadNum \
         consumerManagerThreadPoolQueueCapacity consumerManageThreadPoolNums debugLockEnable \
         defaultThreadPoolNums defaultThreadPoolQueueCapacity disableCallbackExecutor \
         disableNettyWorkerGroup dispatchCqCacheNum dispatchCqThreads dispatchFromSenderThread \
         enableBuildConsumeQueueConcurrently endTransactionPoolQueueCapacity \
         heartbeatThreadPoolNums heartbeatThreadPoolQueueCapacity litePullMessageThreadPoolNums \
         litePullThreadPoolQueueCapacity loadBalanceProcessorThreadPoolNums \
         loadBalanceThreadPoolQueueCapacity maxAsyncPutMessageRequests \
         processReplyMessageThreadPoolNums pullMessageThreadPoolNums pullThreadPoolQueueCapacity \
         putMessageFutureThreadPoolNums putThreadPoolQueueCapacity queryMessageThreadPoolNums \
         queryThreadPoolQueueCapacity recoverConcurrently recoverThreadPoolNums \
         replyThreadPoolQueueCapacity sendMessageThreadPoolNums sendThreadPoolQueueCapacity \
         serverAsyncSemaphoreValue serverCallbackExecutorThreads serverNettyWorkerGroupEnable \
         serverOnewaySemaphoreValue serverSelectorThreads serverWorkerThreads \
         spinLockCollisionRetreatOptimalDegree timerEnableDisruptor timerGetMessageThreadNum \
         timerPutMessageThreadNum timerReputServiceCorePoolSize timerReputServiceMaxPoolSize \
         timerReputServiceQueueCapacity topicQueueLockNum transactionCheckRocksdbCoreThreads \
         transactionCheckRocksdbMaxThreads transactionCheckRocksdbQueueCapacity useABSLock \
         useEpollNativeSelector useReentrantLockWhenPutMessage",
    ),
    (
        "every buffer has a limit and refuses when it is full",
        "brokerFastFailureEnable cgColdReadThreshold coldCtrStrategyEnable \
         coldDataFlowControlEnable coldDataScanEnable enableNetWorkFlowControl \
         fastFailIfNoBufferInStorePool globalColdReadThreshold osPageCacheBusyTimeOutMills \
         putMessageTimeout usePIDColdCtrStrategy waitTimeMillsInAckQueue \
         waitTimeMillsInAdminBrokerQueue waitTimeMillsInHeartbeatQueue \
         waitTimeMillsInLitePullQueue waitTimeMillsInPullQueue waitTimeMillsInSendQueue \
         waitTimeMillsInTransactionQueue",
    ),
    (
        "the store has one format and no RocksDB",
        "bottomMostCompressionTypeForConsumeQueueStore cleanRocksDBDirtyCQIntervalMin \
         combineAssignOffsetCQType combineCQEnableCheckSelf combineCQLoadingCQTypes \
         combineCQMaxExtraSearchCommitLogFiles combineCQPreferCQType combineCQUseRocksdbForLmq \
         configManagerVersion enableRocksDBLog indexRocksDBEnable \
         iteratorWhenUseRocksdbConsumeQueue maxRocksDBIndexQueryDays memTableFlushIntervalMs \
         popConsumerFSServiceInit popConsumerKVServiceEnable popConsumerKVServiceInit \
         popConsumerKVServiceLog realTimePersistRocksDBConfig rocksdbCompressionType \
         rocksdbCQDoubleWriteEnable rocksdbFlushWalFrequency rocksdbWalFileRollingThreshold \
         statRocksDBCQIntervalSec storeType timerRocksDBEnable timerRocksDBPrecisionMs \
         timerRocksDBRollIntervalHours timerRocksDBRollMaxTps timerRocksDBRollRangeHours \
         timerRocksDBStopScan timerRocksDBTimeExpiredMaxTps transRocksDBEnable \
         useSeparateStorePathForRocksdbCQ useSingleRocksDBForAllConfigs",
    ),
    (
        "how messages are popped here has none of these settings",
        "appendAckAsync appendCkAsync defaultPopShareQueueNum enableLitePopLog \
         enableNotifyAfterPopOrderLockRelease enableNotifyBeforePopCalculateLag enablePopBatchAck \
         enablePopBufferMerge enablePopLog enablePopMessageThreshold enablePopMetrics \
         enableRetryTopicV2 enableSkipLongAwaitingAck initPopOffsetByCheckMsgInMem \
         maxMessageFilterNumForNotification maxPopPollingSize popCkMaxBufferSize \
         popCkOffsetMaxQueueSize popCkStayBufferTime popCkStayBufferTimeOut \
         popInflightMessageThreshold \
         popLongPollingForceNotifyInterval popPollingMapExpireTimeSeconds popPollingMapSize \
         popPollingSize popResponseReturnActualRetryTopic popReviveConcurrency \
         popReviveMaxAttemptTimes popReviveMaxReturnSizePerRead popReviveSkipIfGroupAbsent \
         retrieveMessageFromPopRetryTopicV1 reviveAckWaitMs reviveInterval \
         reviveMaxSlow reviveQueueNum reviveScanTime serverLoadBalancerEnable \
         skipWhenCKRePutReachMaxTimes useMessageFilterForNotification useSeparateRetryQueue",
    ),
    (
        "a lite topic with something to consume is at one subscribed client at any time: nothing \
         is looked for, and nothing can be lost. lite.sub.client.max.event.cnt of a group still \
         spreads them over its clients",
        "enableLiteEventMode liteEventCheckInterval liteEventFullDispatchDelayTime \
         liteEventFullDispatchDelayTimeForWildcardGroup maxClientEventCount",
    ),
    (
        "subscriptions to lite topics and lite topics without messages end by themselves: after \
         3 minutes, and after lite.topic.expiration, 15 minutes at least",
        "liteSubscriptionCheckInterval liteSubscriptionCheckTimeoutMills liteTtlCheckInterval \
         minLiteTTl",
    ),
    (
        "how far a group is behind in lite topics is worked out when it is asked",
        "enableLmqStats liteLagCountMetricsEnable liteLagLatencyCollectEnable \
         liteLagLatencyMetricsEnable liteLagLatencyTopK litePullMessageEnable",
    ),
    (
        "how messages for a time are kept here has none of these settings",
        "allowRecallWhenBrokerNotWriteable appendTopicForTimerDeleteKey \
         checkTransactionMessageEnable delayOffsetUpdateVersionStep disappearTimeAfterStart \
         enableScheduleAsyncDeliver enableScheduleMessageStats enableTransactionMetrics \
         flushDelayOffsetInterval mappedFileSizeTimerLog \
         scheduleAsyncDeliverMaxPendingLimit \
         scheduleAsyncDeliverMaxResendNum2Blocked storeReplyMessageEnable timerCheckMetricsWhen \
         timerColdDataCheckIntervalMs timerCongestNumEachSlot timerEnableCheckMetrics \
         timerEnableRetryUntilSuccess timerFlushIntervalMs timerInterceptDelayLevel \
         timerMetricSmallThreshold timerPrecisionMs timerProgressLogIntervalMs \
         timerRecallToTimelineEnable timerRecallToTimeWheelEnable timerRollWindowSlot \
         timerSkipUnknownError timerStopDequeue timerStopEnqueue timerWarmEnable timerWheelEnable \
         timerWheelSnapshotFlush timerWheelSnapshotIntervalMs \
         transactionMetricFlushInterval transactionOpBatchInterval \
         transactionOpMsgMaxSize transWriteOriginTransHalfEnable",
    ),
    (
        "replicas are not there yet",
        "asyncLearner brokerElectionPriority brokerHeartbeatInterval brokerIP2 \
         brokerNotActiveTimeoutMillis checkSyncStateSetPeriod cleanOfflineBrokerInterval \
         consumerFallbehindThreshold controllerAddr controllerHeartBeatTimeoutMills dLegerGroup \
         dLegerPeers dLegerSelfId enableAutoInSyncReplicas enableBatchPush \
         fetchControllerAddrByDnsLookup forwardTimeout haFlowControlEnable haHousekeepingInterval \
         haListenPort haMaxGapNotInSync haMaxTimeSlaveNotCatchup haSendHeartbeatInterval \
         haTransferBatchSize maxChecksumRange maxHaTransferByteInSecond maxSlaveResendLength \
         offsetCheckInSlave preferredLeaderId replicasPerDiskPartition sendHeartbeatTimeoutMillis \
         skipPreOnline slaveReadEnable slaveTimeout storePathBrokerIdentity \
         storePathDLedgerCommitLog storePathEpochFile syncBrokerMemberGroupPeriod \
         syncBrokerMetadataPeriod syncControllerMetadataPeriod syncFromLastFile \
         syncMasterFlushOffsetWhenStartup",
    ),
    (
        "counters are always on and metrics exporters are not there yet",
        "accountStatsEnable accountStatsPrintZeroValues autoDeleteUnusedStats commercialBaseCount \
         commercialSizePerMsg enableConnectionMetrics enableDetailStat enableLagAndDlqMetrics \
         enableMessageStoreMetrics enableRemotingMetrics enableRequestMetrics enableStatsMetrics \
         estimateAccumulation isolateLogEnable maxStatsIdleTimeInMinutes \
         metricGrpcExporterIntervalInMills metricGrpcExporterTimeOutInMills \
         metricLoggingExporterIntervalInMills metricsExportBatchMaxDataPoints \
         metricsGrpcExporterHeader metricsGrpcExporterTarget metricsInDelta metricsLabel \
         metricsOtelCardinalityLimit metricsPromExporterHost metricsPromExporterPort \
         printChannelGroups printChannelGroupsMinNum sampleCountThreshold sampleSteps",
    ),
    (
        "the log is written with direct I/O in groups; there are no mapped files and no page \
         cache to tend",
        "accessMessageInMemoryHotRatio accessMessageInMemoryMaxRatio cleanSwapedMapInterval \
         commitCommitLogLeastPages commitCommitLogThoroughInterval commitIntervalCommitLog \
         commitLogForceSwapMapInterval commitLogSwapMapInterval commitLogSwapMapReserveFileNum \
         dataReadAheadEnable destroyMapedFileIntervalForcibly enableRunningFlagsInFlush \
         flushCommitLogLeastPages flushCommitLogThoroughInterval flushCommitLogTimed \
         flushConsumeQueueLeastPages flushConsumeQueueThoroughInterval \
         flushLeastPagesWhenWarmMapedFile logicQueueForceSwapMapInterval \
         logicQueueSwapMapInterval logicQueueSwapMapReserveFileNum mappedFileSwapEnable \
         putConsumeQueueDataByFileChannel sharedByteBufferNum transferMsgByHeap \
         transientStorePoolEnable transientStorePoolSize wakeCommitWhenPutMessage \
         wakeFlushWhenPutMessage warmMapedFileEnable writeWithoutMmap",
    ),
    (
        "queue and key indexes are built from the log and hold no sizes to choose",
        "bitMapLengthConsumeQueueExt compactionCqMappedFileSize compactionMappedFileSize \
         compactionScheduleInternal correctLogicMinOffsetForceInterval \
         correctLogicMinOffsetSleepInterval defaultQueryMaxNum deleteConsumeQueueFilesInterval \
         diskFallRecorded enableAsyncReput enableCalcFilterBitMap enableCompaction \
         enableConsumeQueueExt enableLogConsumeQueueRepeatedlyBuildWhenRecover \
         expectConsumerNumUseFilter flushIntervalConsumeQueue indexFileReadEnable \
         indexFileWriteEnable logicalDiskSpaceCleanForciblyThreshold mapedFileSizeConsumeQueue \
         mappedFileSizeConsumeQueue mappedFileSizeConsumeQueueExt mapperFileSizeBatchConsumeQueue \
         maxConsumeQueueScan maxErrorRateOfBloomFilter maxHashSlotNum maxIndexNum maxMsgsNumBatch \
         maxOffsetMapSize messageIndexEnable messageIndexSafe putMsgIndexHightWater \
         recheckReputOffsetFromCq searchBcqByCacheEnable storePathConsumeQueue storePathIndex \
         travelCqFileNumWhenGetMessage",
    ),
    (
        "segments are removed one by one as they expire, at any hour (docs/retention.md)",
        "cleanFileForciblyEnable cleanResourceInterval deleteCommitLogFilesInterval \
         deleteFileBatchMax deleteWhen diskMaxUsedSpaceRatio diskSpaceWarningLevelRatio \
         enableCleanExpiredOffset maxBatchDeleteFilesNum redeleteHangedFileInterval",
    ),
    (
        "recovery checks every batch from the last checkpoint on and needs no choice",
        "abortFile checkCommitLogOffsetOnRecover checkCRCOnRecover commitLogRecoverMaxNum \
         enableAcceleratedRecovery enabledAppendPropCRC forceVerifyPropCRC \
         maxRecoveryCommitlogFiles storeCheckpoint",
    ),
    (
        "the whole store lies below storePathRootDir",
        "readOnlyCommitLogStorePaths storePathCommitLog",
    ),
    (
        "sockets, buffers and their limits are the server's own choice",
        "channelNotActiveInterval clientChannelMaxIdleTimeSeconds clientCloseSocketIfTimeout \
         clientPooledByteBufAllocatorEnable clientSocketRcvBufSize clientSocketSndBufSize \
         connectTimeoutMillis enableFastChannelEventProcess enableReconnectForGoAway \
         enableShutdownGracefully highSpeedMode isScanAvailableNameSrv \
         maxReconnectIntervalTimeSeconds serverPooledByteBufAllocatorEnable serverSocketBacklog \
         serverSocketRcvBufSize serverSocketSndBufSize shutdownWaitTimeSeconds \
         writeBufferHighWaterMark writeBufferLowWaterMark",
    ),
    (
        "every registration carries all topics, to every name server of namesrvAddr",
        "compatibleWithOldNameSrv compressedRegister enableSingleTopicRegister \
         enableSplitMetadata enableSplitRegistration fetchNamesrvAddrInterval forceRegister \
         loadBalancePollNameServerInterval registerBrokerTimeoutMills splitMetadataSize \
         splitRegistrationSize unRegisterBrokerQueueCapacity updateNameServerAddrPeriod \
         waitSecondsForService",
    ),
    (
        "offsets are records of the log",
        "broadcastOffsetExpireMaxSecond broadcastOffsetExpireSecond \
         consumerOffsetUpdateVersionStep enableBroadcastOffsetStore \
         flushConsumerOffsetHistoryInterval flushConsumerOffsetInterval \
         persistConsumerOffsetIncrementally",
    ),
    (
        "paths and environment names belong to the Java installation",
        "brokerConfigPath configBlackList configStorePath productEnvName rocketmqHome",
    ),
    (
        "it tunes a step that is not taken here",
        "autoMessageVersionOnTopicLen clearRetryTopicWhenDeleteTopic enableMixedMessageType \
         filterDataCleanTimeSpan maxFilterMessageSize pullBatchMaxMessageCount socksProxyConfig \
         subscriptionExpiredTimeout",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::keys;

    #[test]
    fn no_name_is_listed_twice_or_is_a_key() {
        let mut seen = BTreeSet::new();
        for name in names() {
            assert!(seen.insert(name), "{name} is listed twice");
            assert!(keys::find(name).is_none(), "{name} is a key");
            assert!(find(name).is_some(), "{name}");
        }
        assert!(seen.len() > 450, "{}", seen.len());
    }
}
