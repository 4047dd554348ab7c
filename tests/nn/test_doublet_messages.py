"""Messages between hits are those of a loop over their doublets, in both directions."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from hepattn.nn.doublet_messages import DoubletGraph, DoubletMessages

W, D = 6, 4


def random_graph(num_hits: int, num_doublets: int) -> DoubletGraph:
    shape = (2, num_hits, num_doublets)
    return DoubletGraph(
        torch.randint(num_hits, shape),
        torch.rand(shape) < 0.6,
        torch.randn(*shape, D),
        torch.randn(shape),
    )


def by_loop(net: DoubletMessages, x: Tensor, graph: DoubletGraph, event: int) -> Tensor:
    """One event, doublet by doublet."""
    x, normal = x[event], net.norm(x[event])
    own, of_partners = ([torch.zeros(D) for _ in x] for _ in range(2))
    partner, valid, features, logit = (part[event] for part in graph)
    for i in range(len(x)):
        for k in range(partner.shape[1]):
            if valid[i, k]:
                j = int(partner[i, k])
                message = F.gelu(
                    net.owner(normal[i]) + net.partner(normal[j]) + net.doublet(features[i, k])
                )
                message = message * (net.gate(message) + logit[i, k]).sigmoid()
                own[i] = own[i] + message
                of_partners[j] = of_partners[j] + message
    heard = torch.cat([torch.stack(own), torch.stack(of_partners)], 1) / 2
    return x + net.update(torch.cat([normal, heard], 1))


def test_each_doublet_speaks_to_both_its_hits() -> None:
    net, x, graph = DoubletMessages(W, D), torch.randn(2, 5, W), random_graph(5, 3)
    out = net(x, graph)
    for event in range(2):
        assert_close(out[event], by_loop(net, x, graph, event), atol=1e-5, rtol=1e-4)


def test_a_hit_hears_from_one_that_it_has_not_in_its_list() -> None:
    net, x, graph = DoubletMessages(W, D), torch.randn(2, 5, W), random_graph(5, 1)
    partner = torch.ones_like(graph.partner)  # all have hit 1 in their list, hit 1 itself included
    graph = graph._replace(partner=partner, valid=torch.ones_like(graph.valid))
    x.requires_grad_()
    heard = torch.autograd.grad(net(x, graph)[0, 1].sum(), x)[0][0].abs().sum(1)
    assert (heard > 0).all()
    heard = torch.autograd.grad(net(x, graph)[0, 4].sum(), x)[0][0].abs().sum(1)
    assert (heard > 0).tolist() == [False, True, False, False, True]


def test_a_missing_doublet_says_nothing() -> None:
    net, x, graph = DoubletMessages(W, D), torch.randn(2, 5, W), random_graph(5, 3)
    missing = ~graph.valid
    other = graph._replace(
        partner=torch.where(missing, 4 - graph.partner, graph.partner),
        features=graph.features.masked_fill(missing.unsqueeze(-1), 50.0),
        logit=graph.logit.masked_fill(missing, 50.0),
    )
    assert_close(net(x, other), net(x, graph))
