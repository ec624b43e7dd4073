package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/admin"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

const queues = 4

var (
	background = context.Background()
	instances  atomic.Int64
)

// place is where the broker said it put a message.
type place struct {
	broker string
	queue  int
	offset int64
}

func placeOf(result *primitive.SendResult) place {
	same(primitive.SendOK, result.Status, "status of "+result.String())
	return place{result.MessageQueue.BrokerName, result.MessageQueue.QueueId, result.QueueOffset}
}

func instance() string {
	return fmt.Sprintf("go-%d-%d", os.Getpid(), instances.Add(1))
}

func servers(o options) primitive.NamesrvAddr {
	return strings.Split(o.namesrv, ";")
}

func newProducer(o options, more ...producer.Option) rocketmq.Producer {
	made, err := rocketmq.NewProducer(append([]producer.Option{
		producer.WithNameServer(servers(o)),
		producer.WithGroupName(o.group + "-producer"),
		producer.WithInstanceName(instance()),
		producer.WithSendMsgTimeout(10 * time.Second),
	}, more...)...)
	must(err)
	must(made.Start())
	return made
}

// createTopic asks the broker that took a first message; the library finds no broker by cluster.
func createTopic(o options, via rocketmq.Producer) {
	scratch := o
	scratch.topic = o.topic + "-scratch"
	result, err := via.SendSync(background, makeMessage(scratch, "scratch", 0))
	must(err)
	id, err := primitive.UnmarshalMsgID([]byte(result.OffsetMsgID))
	must(err)
	tools := newAdmin(o)
	must(tools.CreateTopic(background,
		admin.WithTopicCreate(o.topic),
		admin.WithBrokerAddrCreate(fmt.Sprintf("%s:%d", id.Addr, id.Port)),
		admin.WithReadQueueNums(queues),
		admin.WithWriteQueueNums(queues)))
	until(30, "a route of "+o.topic, func() bool {
		found, err := tools.FetchPublishMessageQueues(background, o.topic)
		return err == nil && len(found) == queues
	})
	must(tools.Close())
}

func newAdmin(o options) admin.Admin {
	tools, err := admin.NewAdmin(
		admin.WithResolver(primitive.NewPassthroughResolver(servers(o))))
	must(err)
	return tools
}

func publishQueues(o options) []*primitive.MessageQueue {
	tools := newAdmin(o)
	defer tools.Close()
	found, err := tools.FetchPublishMessageQueues(background, o.topic)
	must(err)
	return found
}

type listener = func(context.Context, ...*primitive.MessageExt) (consumer.ConsumeResult, error)

func newPush(o options, group, tags string, listen listener,
	more ...consumer.Option) rocketmq.PushConsumer {
	made, err := rocketmq.NewPushConsumer(append([]consumer.Option{
		consumer.WithNameServer(servers(o)),
		consumer.WithGroupName(group),
		consumer.WithInstance(instance()),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset),
		consumer.WithConsumeGoroutineNums(4),
	}, more...)...)
	must(err)
	selector := consumer.MessageSelector{Type: consumer.TAG, Expression: tags}
	must(made.Subscribe(o.topic, selector, listen))
	must(made.Start())
	return made
}

func newPull(o options, group string) rocketmq.PullConsumer {
	made, err := rocketmq.NewPullConsumer(
		consumer.WithNameServer(servers(o)),
		consumer.WithGroupName(group),
		consumer.WithInstance(instance()),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset),
	)
	must(err)
	selector := consumer.MessageSelector{Type: consumer.TAG, Expression: "*"}
	must(made.Subscribe(o.topic, selector))
	must(made.Start())
	return made
}

// readQueue reads a queue that has messages behind an offset, and answers where it ends.
// It never pulls at the end: this client always asks the broker to hold such a pull for 20 s.
func readQueue(via rocketmq.PullConsumer, queue *primitive.MessageQueue, offset int64,
	each func(place, *primitive.MessageExt)) int64 {
	for {
		result, err := via.PullFrom(background, queue, offset, 32)
		must(err)
		same(primitive.PullFound, result.Status, "pull below the end")
		for _, message := range result.GetMessageExts() {
			same(offset, message.QueueOffset, "no gap in "+queue.String())
			each(place{queue.BrokerName, queue.QueueId, offset}, message)
			offset++
		}
		same(offset, result.NextBeginOffset, "next offset of "+queue.String())
		if offset >= result.MaxOffset {
			return offset
		}
	}
}
