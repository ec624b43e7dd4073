package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

// runOrderly checks one message after the other per queue, also when one fails once.
func runOrderly(o options) {
	via := newProducer(o, producer.WithQueueSelector(producer.NewManualQueueSelector()))
	plain := newProducer(o)
	createTopic(o, plain)
	must(plain.Shutdown())
	var lock sync.Mutex
	taken := map[int][]int{}
	busy := map[int]int{}
	total, refused, failure := 0, 0, ""
	listen := func(_ context.Context, messages ...*primitive.MessageExt) (
		consumer.ConsumeResult, error) {
		result := consumer.ConsumeSuccess
		for _, message := range messages {
			text := guarded(func() {
				_, index := checkMessage(message)
				queue := message.Queue.QueueId
				lock.Lock()
				defer lock.Unlock()
				busy[queue]++
				inside := busy[queue]
				lock.Unlock()
				time.Sleep(time.Millisecond)
				lock.Lock()
				busy[queue]--
				same(1, inside, "listeners of one queue at a time")
				if index%50 == 7 && message.ReconsumeTimes == 0 {
					refused++
					result = consumer.SuspendCurrentQueueAMoment
					return
				}
				taken[queue] = append(taken[queue], index)
				total++
			})
			if text != "" {
				lock.Lock()
				failure = text
				lock.Unlock()
			}
		}
		return result, nil
	}
	queuesOf := publishQueues(o)
	one := newPush(o, o.group, "*", listen, consumer.WithConsumerOrder(true),
		consumer.WithSuspendCurrentQueueTimeMillis(100*time.Millisecond))
	for index := 0; index < o.count; index++ {
		message := makeMessage(o, fmt.Sprintf("o-%d", index), index)
		message.Queue = queuesOf[index%queues]
		_, err := via.SendSync(background, message)
		must(err)
	}
	until(60, "all arrive", func() bool {
		lock.Lock()
		defer lock.Unlock()
		return failure != "" || total >= o.count
	})
	must(one.Shutdown())
	same("", failure, "listener")
	same(o.count, total, "messages")
	same(queues, len(taken), "queues used")
	for queue, list := range taken {
		for at, index := range list {
			same(list[0]+at*queues, index, fmt.Sprint("order in queue ", queue))
		}
	}
	fact("refused", refused)
	must(via.Shutdown())
}

const refusals = 2

// refusing takes a message at the third attempt only.
type refusing struct {
	lock     sync.Mutex
	attempts map[string]int
	done     int
	failure  string
}

func (r *refusing) listen(ctx context.Context, messages ...*primitive.MessageExt) (
	consumer.ConsumeResult, error) {
	result := consumer.ConsumeSuccess
	r.lock.Lock()
	defer r.lock.Unlock()
	failure := guarded(func() {
		same(1, len(messages), "messages at a time")
		id, _ := checkMessage(messages[0])
		attempt := r.attempts[id]
		r.attempts[id]++
		same(attempt, int(messages[0].ReconsumeTimes), "attempts of "+id)
		if attempt < refusals {
			if concurrently, there := primitive.GetConcurrentlyCtx(ctx); there {
				concurrently.DelayLevelWhenNextConsume = 1
			}
			result = consumer.ConsumeRetryLater
			return
		}
		r.done++
	})
	if failure != "" {
		r.failure = failure
	}
	return result, nil
}

func (r *refusing) state() (int, string) {
	r.lock.Lock()
	defer r.lock.Unlock()
	return r.done, r.failure
}

// runRetry refuses messages: they come back with their attempts counted, or end as dead letters.
func runRetry(o options) {
	o.count = min(o.count, 12)
	via := newProducer(o)
	createTopic(o, via)
	sendAll(o, via)
	patient := &refusing{attempts: map[string]int{}}
	strict := &refusing{attempts: map[string]int{}}
	one := newPush(o, o.group, "*", patient.listen)
	other := newPush(o, o.group+"-strict", "*", strict.listen, consumer.WithMaxReconsumeTimes(1))
	until(90, "all taken after refusals", func() bool {
		done, failure := patient.state()
		return failure != "" || done >= o.count
	})
	dead := o
	dead.topic = "%DLQ%" + o.group + "-strict"
	letters := map[string]bool{}
	until(60, "all dead letters", func() bool {
		return guarded(func() {
			reading := newPull(dead, o.group+"-check")
			defer reading.Shutdown()
			for _, queue := range publishQueues(dead) {
				readQueue(reading, queue, 0, func(_ place, message *primitive.MessageExt) {
					id, _ := checkMessage(message)
					letters[id] = true
					same(o.topic, message.GetProperty("RETRY_TOPIC"), "origin")
				})
			}
			same(o.count, len(letters), "dead letters")
		}) == ""
	})
	must(one.Shutdown())
	must(other.Shutdown())
	done, failure := patient.state()
	same("", failure, "listener")
	same(o.count, done, "taken after refusals")
	done, failure = strict.state()
	same("", failure, "strict listener")
	same(0, done, "taken by the strict group")
	must(via.Shutdown())
}

// runDelay checks that messages arrive when the delay of their level is over.
func runDelay(o options) {
	via := newProducer(o)
	createTopic(o, via)
	var lock sync.Mutex
	arrived := map[string]time.Time{}
	one := newPush(o, o.group, "*", func(_ context.Context, messages ...*primitive.MessageExt) (
		consumer.ConsumeResult, error) {
		lock.Lock()
		defer lock.Unlock()
		for _, message := range messages {
			id, _ := checkMessage(message)
			arrived[id] = time.Now()
		}
		return consumer.ConsumeSuccess, nil
	})
	have := func(count int) func() bool {
		return func() bool {
			lock.Lock()
			defer lock.Unlock()
			return len(arrived) >= count
		}
	}
	// A first message without delay: the group has its queues when the clock matters.
	_, err := via.SendSync(background, makeMessage(o, "d-now", 0))
	must(err)
	until(60, "the plain message", have(1))
	due := map[string]time.Time{}
	for index := 0; index < 6; index++ {
		id := fmt.Sprintf("d-%d", index)
		level := 1 + index%2
		due[id] = time.Now().Add(time.Duration(1+4*(level-1)) * time.Second)
		_, err := via.SendSync(background, makeMessage(o, id, index).WithDelayTimeLevel(level))
		must(err)
	}
	until(30, "all delayed messages", have(7))
	must(one.Shutdown())
	for id, at := range due {
		late := arrived[id].Sub(at)
		check(late >= -time.Millisecond && late < 5*time.Second, "%s late by %v", id, late)
	}
	must(via.Shutdown())
}
