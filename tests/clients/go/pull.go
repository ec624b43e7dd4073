package main

import (
	"fmt"

	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

// sendSpread puts the messages in turn into the queues.
func sendSpread(o options) {
	via := newProducer(o, producer.WithQueueSelector(producer.NewManualQueueSelector()))
	all := publishQueues(o)
	for index := 0; index < o.count; index++ {
		message := makeMessage(o, fmt.Sprintf("p-%d", index), index)
		message.Queue = all[index%len(all)]
		_, err := via.SendSync(background, message)
		must(err)
	}
	must(via.Shutdown())
}

// commitHalf consumes half of every queue and commits that.
func commitHalf(o options) map[int]int64 {
	via := newPull(o, o.group)
	committed := map[int]int64{}
	all := publishQueues(o)
	for _, queue := range all {
		half := int64(o.count / len(all) / 2)
		for offset := int64(0); offset < half; {
			result, err := via.PullFrom(background, queue, offset, int(min(32, half-offset)))
			must(err)
			same(primitive.PullFound, result.Status, "pull below the end")
			offset = result.NextBeginOffset
		}
		committed[queue.QueueId] = half
	}
	// Only the queues that a rebalance gave to this member are persisted.
	until(40, "the broker keeps the offsets", func() bool {
		for _, queue := range all {
			must(via.UpdateOffset(queue, committed[queue.QueueId]))
		}
		must(via.PersistOffset(background, o.topic))
		return guarded(func() { sameCommitted(o, committed) }) == ""
	})
	must(via.Shutdown())
	return committed
}

func sameCommitted(o options, committed map[int]int64) {
	via := newPull(o, o.group)
	defer via.Shutdown()
	for _, queue := range publishQueues(o) {
		offset, err := via.CurrentOffset(queue)
		must(err)
		same(committed[queue.QueueId], offset, "committed offset of "+queue.String())
	}
}

// rest starts from what another instance committed; nothing may be missing from there.
func rest(o options, committed map[int]int64) {
	sameCommitted(o, committed)
	via := newPull(o, o.group)
	total := 0
	for _, queue := range publishQueues(o) {
		from := committed[queue.QueueId]
		end := readQueue(via, queue, from, func(_ place, message *primitive.MessageExt) {
			checkMessage(message)
		})
		total += int(end)
	}
	same(o.count, total, "messages in the queues")
	must(via.Shutdown())
}

func runPull(o options) {
	via := newProducer(o)
	createTopic(o, via)
	sendSpread(o)
	committed := commitHalf(o)
	rest(o, committed)
	queue := publishQueues(o)[0]
	edges := newPull(o, o.group+"-edges")
	end := readQueue(edges, queue, 0, func(place, *primitive.MessageExt) {})
	result, err := edges.PullFrom(background, queue, end+100, 32)
	must(err)
	same(primitive.PullOffsetIllegal, result.Status, "pull beyond the end")
	same(end, result.NextBeginOffset, "offset to go on with")
	same(end, result.MaxOffset, "largest offset")
	same(0, result.MinOffset, "smallest offset")
	must(edges.Shutdown())
	must(via.Shutdown())
}
