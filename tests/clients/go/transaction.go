package main

import (
	"fmt"
	"strings"
	"sync"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

type deciding struct {
	lock  sync.Mutex
	asked map[string]bool
}

func (d *deciding) ExecuteLocalTransaction(
	message *primitive.Message) primitive.LocalTransactionState {
	id := message.GetProperty("id")
	switch {
	case strings.HasPrefix(id, "commit"):
		return primitive.CommitMessageState
	case strings.HasPrefix(id, "rollback"):
		return primitive.RollbackMessageState
	}
	return primitive.UnknowState
}

func (d *deciding) CheckLocalTransaction(
	message *primitive.MessageExt) primitive.LocalTransactionState {
	id := message.GetProperty("id")
	d.lock.Lock()
	defer d.lock.Unlock()
	d.asked[id] = true
	if strings.HasPrefix(id, "late") {
		return primitive.CommitMessageState
	}
	return primitive.RollbackMessageState
}

// runTransaction: committed ones arrive, rolled back ones never, undecided ones when asked.
func runTransaction(o options) {
	plain := newProducer(o)
	createTopic(o, plain)
	must(plain.Shutdown())
	decide := &deciding{asked: map[string]bool{}}
	via, err := rocketmq.NewTransactionProducer(decide,
		producer.WithNameServer(servers(o)),
		producer.WithGroupName(o.group+"-tx"),
		producer.WithInstanceName(instance()))
	must(err)
	must(via.Start())
	arrived := newSeen()
	one := newPush(o, o.group, "*", arrived.listen)
	kinds := []string{"commit", "rollback", "late", "commit", "rollback", "never"}
	count := min(o.count, 30) / len(kinds) * len(kinds)
	for index := 0; index < count; index++ {
		id := fmt.Sprintf("%s-%d", kinds[index%len(kinds)], index)
		_, err := via.SendMessageInTransaction(background, makeMessage(o, id, index))
		must(err)
	}
	until(60, "the committed ones", func() bool { return arrived.different() == count/3 })
	mark("committed")
	until(100, "the broker asks for the undecided ones", func() bool {
		decide.lock.Lock()
		defer decide.lock.Unlock()
		return len(decide.asked) == count/3 && arrived.different() == count/2
	})
	for id := range arrived.times {
		check(strings.HasPrefix(id, "commit") || strings.HasPrefix(id, "late"), "arrived: %s", id)
	}
	fact("asked", len(decide.asked))
	arrived.fine()
	must(one.Shutdown())
	must(via.Shutdown())
}
