"""Domains whose addresses say nothing about a company: providers of mail to anybody, and of throw-away addresses.

The list is bounded and chosen: the largest providers by country. What is missing is added in the definition
`accounts` (`free_mail`).
"""

_INTERNATIONAL = """
    gmail.com googlemail.com outlook.com hotmail.com live.com msn.com passport.com yahoo.com ymail.com rocketmail.com
    aol.com aim.com icloud.com me.com mac.com proton.me protonmail.com pm.me tutanota.com tuta.io tuta.com zoho.com
    zohomail.com fastmail.com fastmail.fm hushmail.com mail.com email.com gmx.com gmx.us gmx.net inbox.com hey.com
    duck.com mailfence.com posteo.net runbox.com startmail.com lycos.com usa.com consultant.com engineer.com
"""
_BY_COUNTRY = """
    hotmail.co.uk live.co.uk outlook.co.uk yahoo.co.uk btinternet.com virginmedia.com sky.com talktalk.net
    ntlworld.com blueyonder.co.uk tiscali.co.uk hotmail.de live.de outlook.de yahoo.de web.de gmx.de freenet.de
    t-online.de posteo.de mailbox.org arcor.de 1und1.de vodafone.de gmx.at aon.at chello.at gmx.ch bluewin.ch
    hispeed.ch hotmail.fr live.fr outlook.fr yahoo.fr orange.fr wanadoo.fr free.fr laposte.net sfr.fr neuf.fr bbox.fr
    numericable.fr hotmail.it live.it outlook.it yahoo.it libero.it virgilio.it tiscali.it alice.it tin.it tim.it
    hotmail.es live.es outlook.es yahoo.es telefonica.net terra.es sapo.pt hotmail.nl live.nl ziggo.nl kpnmail.nl
    xs4all.nl planet.nl home.nl telenet.be skynet.be proximus.be live.be hotmail.be yahoo.se hotmail.se live.se
    telia.com spray.se hotmail.dk live.dk yahoo.dk online.no live.no luukku.com suomi24.fi kolumbus.fi wp.pl o2.pl
    onet.pl onet.eu interia.pl gazeta.pl op.pl seznam.cz email.cz centrum.cz azet.sk zoznam.sk freemail.hu
    citromail.hu abv.bg mail.bg ukr.net i.ua meta.ua mail.ru inbox.ru list.ru bk.ru yandex.ru yandex.com ya.ru
    rambler.ru hotmail.gr yahoo.gr mynet.com walla.com walla.co.il comcast.net verizon.net att.net sbcglobal.net
    bellsouth.net cox.net charter.net earthlink.net optonline.net juno.com frontier.com windstream.net roadrunner.com
    twc.com rogers.com sympatico.ca shaw.ca bell.net telus.net videotron.ca yahoo.ca hotmail.ca live.ca outlook.com.br
    hotmail.com.br yahoo.com.br uol.com.br bol.com.br terra.com.br ig.com.br yahoo.com.mx hotmail.com.mx live.com.mx
    prodigy.net.mx yahoo.com.ar hotmail.com.ar live.com.ar fibertel.com.ar yahoo.com.au hotmail.com.au live.com.au
    outlook.com.au bigpond.com bigpond.net.au optusnet.com.au tpg.com.au xtra.co.nz yahoo.co.in yahoo.in
    rediffmail.com sify.com yahoo.co.jp ezweb.ne.jp docomo.ne.jp softbank.ne.jp qq.com 163.com 126.com yeah.net
    sina.com sina.cn sohu.com foxmail.com aliyun.com 139.com 189.cn naver.com daum.net hanmail.net nate.com
    yahoo.com.tw hinet.net yahoo.com.hk yahoo.com.sg yahoo.com.ph yahoo.com.vn yahoo.co.id mweb.co.za telkomsa.net
    webmail.co.za
"""
_THROW_AWAY = """
    mailinator.com guerrillamail.com 10minutemail.com tempmail.com temp-mail.org yopmail.com trashmail.com
    sharklasers.com getnada.com maildrop.cc dispostable.com throwawaymail.com privaterelay.appleid.com
    users.noreply.github.com
"""

FREE_MAIL: frozenset[str] = frozenset((_INTERNATIONAL + _BY_COUNTRY + _THROW_AWAY).split())
