"""The sentences of reasons, in English and Chinese."""

from __future__ import annotations

import unicodedata

from zhiyin.ranking.v1 import ranking_service_pb2 as pb2

# Columns of the longest quotation; a Chinese character takes two.
_LONGEST_QUOTE = 60

# Sentences by what spoke loudest; {} is a quoted text or title. What readers know well is not quoted to them: the
# profile they wrote and the search they just made would stand beside every item of a list.
PLAIN = {
    "en": {
        "query": "Matches your search",
        "search": "Because you searched for {}",
        "profile": "Matches your profile",
        "transition": "Others chose this after {}",
        "sequence": "Goes with what you chose lately",
        "collaborative": "Chosen by people who choose as you do",
        "community": "Liked by people like you",
        "neighbours": "People who share your taste chose this",
        "factors": "Fits your taste",
        "popular": "Popular now",
        "fresh": "New",
        "exploration": "Something different to try",
        "catalog": "A good place to start",
        "similar": "Like {}",
        "rule": "Selected for you by the editors",
    },
    "zh": {
        "query": "符合你的搜索",
        "search": "因为你搜索过{}",
        "profile": "符合你的喜好",
        "transition": "选了{}的人接着也选了它",
        "sequence": "与你最近的选择一脉相承",
        "collaborative": "选择与你相近的人也选了它",
        "community": "与你相似的人喜欢它",
        "neighbours": "与你口味相同的人选了它",
        "factors": "合你的口味",
        "popular": "近期热门",
        "fresh": "新鲜上架",
        "exploration": "换个口味试试",
        "catalog": "不妨从这里开始",
        "similar": "与{}相似",
        "rule": "编辑精选推荐",
    },
}

# Where the item that the sentence would speak of has no title, or is not known.
NO_TITLE = {
    "en": {
        "history": "Like things you chose before",
        "transition": "Others chose this after what you chose",
        "similar": "Like the given items",
    },
    "zh": {
        "history": "与你之前选过的内容相似",
        "transition": "选了同样内容的人接着也选了它",
        "similar": "与所给内容相似",
    },
}

_ANY_VERB = {"en": "Because you viewed {}", "zh": "因为你看过{}"}
_VERBS: dict[str, dict[int, str]] = {
    "en": {
        pb2.EVENT_TYPE_CLICK: "Because you opened {}",
        pb2.EVENT_TYPE_FINISH: "Because you finished {}",
        pb2.EVENT_TYPE_LIKE: "Because you liked {}",
        pb2.EVENT_TYPE_SAVE: "Because you saved {}",
        pb2.EVENT_TYPE_SHARE: "Because you shared {}",
        pb2.EVENT_TYPE_ADD_TO_CART: "Because you put {} into your basket",
        pb2.EVENT_TYPE_PURCHASE: "Because you bought {}",
        pb2.EVENT_TYPE_RATING: "Because you rated {} highly",
        pb2.EVENT_TYPE_COMMENT: "Because you commented on {}",
    },
    "zh": {
        pb2.EVENT_TYPE_CLICK: "因为你点开过{}",
        pb2.EVENT_TYPE_FINISH: "因为你看完了{}",
        pb2.EVENT_TYPE_LIKE: "因为你喜欢{}",
        pb2.EVENT_TYPE_SAVE: "因为你收藏了{}",
        pb2.EVENT_TYPE_SHARE: "因为你分享了{}",
        pb2.EVENT_TYPE_ADD_TO_CART: "因为你把{}加入了购物车",
        pb2.EVENT_TYPE_PURCHASE: "因为你买了{}",
        pb2.EVENT_TYPE_RATING: "因为你给{}打了高分",
        pb2.EVENT_TYPE_COMMENT: "因为你评论了{}",
    },
}


def verb(event_type: int, language: str) -> str:
    """The sentence for what the user did with an item."""
    return _VERBS[language].get(event_type, _ANY_VERB[language])


def quote(text: str) -> str:
    """A title or text in quotation marks, on one line, cut where it is long."""
    flat = " ".join(text.split())
    columns = 0
    for place, character in enumerate(flat):
        columns += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if columns > _LONGEST_QUOTE:
            return f"“{flat[: place - 1].rstrip()}…”"
    return f"“{flat}”"
